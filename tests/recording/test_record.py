"""`turnout record` from prompts to a table that `turnout fit` reads."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.gateway.anthropic_upstream import TEXT, USAGE, anthropic_server
from tests.recording.desk import BAD_USD, GOOD_USD, Desk, asked, by_name, write_prompts
from turnout.cli.main import main


def test_a_table_holds_what_every_candidate_gave_and_cost(desk: Desk) -> None:
    told = desk.record("--score", "numeric", "--samples", "2", "--system", "Be brief.")
    table = desk.table()
    assert (told["rows"], told["missing"], told["notes"]) == (24, 0, [])
    assert table.names == ("good", "bad")
    assert [query.id for query in table.queries] == [f"q{i}" for i in range(6)]
    assert table.tasks == ("sums",) * 6
    assert table.references == tuple(str(2 * i + 1) for i in range(6))
    # "That makes 1." is right for 0 + 1 alone.
    assert table.quality_QM.tolist() == [[1, 1], *[[1, 0]] * 5]
    assert table.cost_usd_QM == pytest.approx(np.array([[GOOD_USD, BAD_USD]] * 6))
    assert np.unique(table.input_tokens) == 100
    assert np.unique(table.output_tokens) == 10
    assert (table.latency_s > 0).all()
    assert Counter(table.sample.tolist()) == {0: 12, 1: 12}
    assert set(table.extras["answer"][table.candidate_index == 1]) == {"That makes 1."}
    assert told["spent_usd"] == pytest.approx(12 * (GOOD_USD + BAD_USD))
    first = desk.server.seen[0]
    assert first["messages"][0] == {"role": "system", "content": "Be brief."}
    assert first["max_completion_tokens"] == 1024


def test_fit_and_report_read_the_table(desk: Desk, tmp_path: Path) -> None:
    desk.prompts = write_prompts(tmp_path, 40)
    desk.record("--score", "numeric", "--concurrency", "16")
    deployment = tmp_path / "deployment"
    fit = [
        "fit",
        str(desk.out),
        "--router",
        "best_single",
        "--out",
        str(deployment),
        "--quality-floor",
        "0.9",
    ]
    assert main([*fit, "--json"]) == 0
    assert json.loads(desk.capsys.readouterr().out)["router"] == "best_single"
    report = ["report", str(desk.out), "--out", str(tmp_path / "report"), "--resplit", "--json"]
    assert main(report) == 0
    assert main(["route", str(deployment), "What is 1 + 2?", "--json"]) == 0


@pytest.mark.parametrize("status", [400, 200])
def test_who_fails_has_no_quality_and_others_go_on(desk: Desk, status: int) -> None:
    """A status of 200 with an error in the place of an answer is a failure, too."""
    desk.server.say["bad"] = lambda body: status if "2 + 3" in str(body) else "That makes 1."
    told = desk.record("--score", "numeric", "--retries", "0")
    table = desk.table()
    assert by_name(told, "bad")["failures"] == 1
    row = np.flatnonzero((table.query_index == 2) & (table.candidate_index == 1))[0]
    assert np.isnan(table.quality[row])
    assert np.isnan(table.cost_usd[row])
    assert str(status) in str(table.extras["error"][row])
    assert any("1 calls of bad failed" in note for note in told["notes"])
    # Another run asks for what failed, and for nothing else.
    desk.server.seen.clear()
    desk.server.say["bad"] = lambda _: "That makes 1."
    told = desk.record("--score", "numeric")
    assert asked(desk.server) == [("bad", "What is 2 + 3?")]
    assert by_name(told, "bad")["failures"] == 0


def test_a_candidate_that_never_answers_is_left_alone(desk: Desk, tmp_path: Path) -> None:
    desk.prompts = write_prompts(tmp_path, 40)
    desk.server.say["bad"] = lambda _: 401
    told = desk.record("--score", "numeric", "--concurrency", "2")
    assert told["given_up"] == ["bad"]
    assert 8 <= len(desk.server.asked("bad")) <= 10
    assert len(desk.server.asked("good")) == 40
    assert by_name(told, "good")["quality"] == 1.0


def test_an_answer_without_text_is_not_asked_for_again_and_the_note_says_so(desk: Desk) -> None:
    desk.server.say["bad"] = lambda body: None if "2 + 3" in str(body) else "That makes 1."
    told = desk.record("--score", "numeric")
    assert (by_name(told, "bad")["failures"], by_name(told, "bad")["empty"]) == (1, 1)
    assert told["notes"] == ["1 answers of bad held no text and are not asked for again"]
    num_asked = len(desk.server.seen)
    assert desk.record("--score", "numeric")["notes"] == told["notes"]
    assert len(desk.server.seen) == num_asked


def test_an_error_with_status_200_is_a_failure_and_asked_for_again(desk: Desk) -> None:
    desk.server.say["bad"] = lambda body: 200 if "2 + 3" in str(body) else "That makes 1."
    told = desk.record("--score", "numeric", "--retries", "0")
    assert (by_name(told, "bad")["failures"], by_name(told, "bad")["empty"]) == (1, 0)
    assert "told to" in str(desk.table().extras["error"])
    desk.server.say["bad"] = lambda _: "That makes 1."
    told = desk.record("--score", "numeric")
    assert (by_name(told, "bad")["failures"], told["notes"]) == (0, [])


def test_nobody_answering_is_an_error_and_no_table(desk: Desk) -> None:
    desk.server.say = {"good": lambda _: 403, "bad": lambda _: 403}
    assert "nobody answered" in desk.refused("--score", "numeric")
    assert not (desk.out / "queries.parquet").exists()


def test_answers_that_nobody_could_score_are_an_error_and_are_kept(desk: Desk) -> None:
    """A pipeline must not go on to fit from a table without a single quality."""
    broken = f"{sys.executable} -c \"raise SystemExit('no')\""
    assert "no answer was scored" in desk.refused("--score", "program", "--program", broken)
    assert np.isnan(desk.table().quality).all()
    desk.server.seen.clear()
    assert by_name(desk.record("--score", "numeric"), "good")["quality"] == 1.0
    assert desk.server.seen == [], "what was answered is scored anew, and nobody is asked"


def test_a_rate_limit_is_waited_for(desk: Desk) -> None:
    said = [429, 503]
    good = desk.server.say["good"]
    desk.server.retry_after = "0.4"
    desk.server.say["good"] = lambda body: said.pop() if said else good(body)
    told = desk.record("--score", "numeric", "--concurrency", "1")
    assert by_name(told, "good")["quality"] == 1.0
    assert by_name(told, "good")["failures"] == 0
    table = desk.table()
    assert Counter(table.extras["attempts"].tolist()) == {1: 11, 3: 1}


def test_a_longer_wait_than_allowed_is_a_failure(desk: Desk) -> None:
    desk.server.retry_after = "3600"
    desk.server.say["bad"] = lambda _: 429
    told = desk.record("--score", "numeric", "--max-wait-s", "5")
    assert by_name(told, "bad")["failures"] == 6
    assert len(desk.server.asked("bad")) == 6


def test_models_and_samples_may_be_added_later(desk: Desk) -> None:
    desk.record("--score", "numeric")
    desk.server.seen.clear()
    desk.server.say["newer"] = desk.server.say["good"]
    told = desk.record("--score", "numeric", "--model", "newer", "--price", "newer=1/1")
    assert {model for model, _ in asked(desk.server, ("good", "bad", "newer"))} == {"newer"}
    assert [line["candidate"] for line in told["candidates"]] == ["good", "bad", "newer"]
    desk.server.seen.clear()
    desk.record("--score", "numeric", "--samples", "3")
    assert len(desk.server.seen) == 2 * 12


def test_scoring_anew_asks_nobody(desk: Desk) -> None:
    desk.record("--score", "exact")
    assert desk.table().quality.max() == 0.0
    desk.server.seen.clear()
    desk.record("--score", "contains")
    assert desk.server.seen == []
    assert desk.table().quality_QM.mean(axis=0).tolist() == pytest.approx([1.0, 1 / 6])


def test_an_answer_without_usage_is_estimated_and_says_so(desk: Desk) -> None:
    desk.server.usage = False
    desk.record("--score", "numeric")
    table = desk.table()
    assert all(table.extras["usage_estimated"])
    assert (table.output_tokens < 10).all()


def test_the_pool_of_a_gateway_is_recorded_without_a_deployment(desk: Desk) -> None:
    config = desk.folder / "gateway.toml"
    config.write_text(
        f"""
        deployment = "not-there-yet"
        default_provider = "main"
        [providers.main]
        kind = "openai"
        base_url = "{desk.server.base_url}"
        [providers.other]
        kind = "openai"
        base_url = "{desk.server.base_url}"
        max_tokens_field = "max_tokens"
        [candidates."bad[effort=low,max_output_tokens=50]"]
        provider = "other"
        [models.house]
        model = "good"
        input_usd_per_mtok = 1.0
        output_usd_per_mtok = 4.0
        """,
        encoding="utf-8",
    )
    command = ["record", str(desk.prompts), "--out", str(desk.out), "--config", str(config)]
    price = ["--price", "bad=1/2"]
    assert main([*command, "--score", "numeric", "--json", *price]) == 0
    table = desk.table()
    assert table.names == ("bad[effort=low,max_output_tokens=50]", "house")
    assert table.cost_usd_QM[:, 1] == pytest.approx([GOOD_USD] * 6)
    body = desk.server.asked("bad")[0]
    assert (body["reasoning_effort"], body["max_tokens"]) == ("low", 50)
    assert {card.price_card is not None for card in table.candidates} == {True}
    assert main([*command, "--score", "numeric", "--model", "hose"]) == 1
    assert "did you mean 'house'" in desk.capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("--score", "judge"), "add --judge NAME"),
        (("--score", "program"), "add --program COMMAND"),
        (("--score", "exact", "--judge", "good"), "--judge without --score judge"),
        (("--score", "exact", "--program", "true"), "--program without --score program"),
        (("--score", "exact", "--price", "good=1"), "MODEL=INPUT/OUTPUT"),
        (("--score", "exact", "--price", "god=1/2"), "did you mean 'good'"),
        (("--score", "exact", "--model", "a[effrt=low]"), "did you mean 'effort'"),
        (("--score", "exact", "--model", "a[max_output_tokens=0]"), "max_output_tokens"),
        (("--score", "exact", "--model", "good"), "every name once"),
        (("--score", "exact", "--cap", "-1"), "--cap"),
        (("--score", "exact", "--concurrency", "5000"), "--concurrency"),
        (("--score", "exact", "--timeout-s", "-1"), "--timeout-s"),
        (("--score", "exact", "--text-column", "txt"), "no column 'txt'"),
        (("--score", "regex", "--reference-column", "text"), "a regular expression"),
    ],
)
def test_a_wrong_call_is_refused_before_anybody_is_asked(
    desk: Desk, more: tuple[str, ...], part: str
) -> None:
    desk.prompts.write_text('{"text": "What (", "reference": "1"}\n', encoding="utf-8")
    assert part in desk.refused(*more)
    assert desk.server.seen == []


def test_a_dry_run_says_what_is_left_and_asks_nobody(desk: Desk) -> None:
    told = desk.record("--score", "numeric", "--dry-run", "--max-output-tokens", "100")
    assert desk.server.seen == []
    assert not desk.out.exists()
    assert (told["calls"], told["answered"], told["spent_usd"]) == (12, 0, 0.0)
    assert told["most_usd"] > 6 * 100 * (4 + 0.4) / 1e6
    done = desk.record("--score", "numeric", "--max-output-tokens", "100")
    assert done["spent_usd"] < told["most_usd"]
    before = (desk.out / "record.jsonl").read_bytes()
    told = desk.record("--score", "numeric", "--dry-run", "--samples", "2")
    assert (told["calls"], told["answered"]) == (12, 12)
    assert told["spent_usd"] == pytest.approx(done["spent_usd"])
    assert (desk.out / "record.jsonl").read_bytes() == before
    unknown = desk.record("--score", "numeric", "--dry-run", "--model", "free")
    assert unknown["most_usd"] is None
    assert main(["record", str(desk.prompts), "--out", str(desk.out), "--base-url", desk.server.base_url,
                 "--model", "good", "--price", "good=1/4", "--score", "exact", "--dry-run"]) == 0  # fmt: skip
    assert "0 calls, at most 0 usd; 6 answers are recorded already" in desk.capsys.readouterr().out


def test_every_kind_of_provider_is_asked_in_its_own_words(desk: Desk) -> None:
    """Anthropic's API refuses what it does not know, and counts what it cached."""
    config = desk.folder / "gateway.toml"
    with anthropic_server() as upstream:
        config.write_text(
            f"""
            deployment = "not-there-yet"
            default_provider = "claude"
            [providers.claude]
            kind = "anthropic"
            base_url = "{upstream.base_url}"
            [models.claude-x]
            input_usd_per_mtok = 1.0
            output_usd_per_mtok = 5.0
            """,
            encoding="utf-8",
        )
        command = ["record", str(desk.prompts), "--out", str(desk.out), "--config", str(config)]
        assert main([*command, "--score", "contains", "--system", "Be brief.", "--cap", "1"]) == 0
    table = desk.table()
    tokens_in = sum(USAGE[name] for name in USAGE if name.startswith(("input", "cache")))
    assert np.unique(table.input_tokens) == tokens_in
    assert np.unique(table.output_tokens) == USAGE["output_tokens"]
    assert table.cost_usd[0] == pytest.approx((tokens_in + 5 * USAGE["output_tokens"]) / 1e6)
    assert set(table.extras["answer"]) == {TEXT["text"]}


def test_a_judge_of_the_pool_is_told_of(desk: Desk) -> None:
    desk.server.say["good"] = lambda body: "Score: 10" if "You grade" in str(body) else "That makes 1."
    told = desk.record("--score", "judge", "--judge", "good")
    assert any("good judged its own answers" in note for note in told["notes"])
    assert by_name(told, "bad")["quality"] == 1.0
