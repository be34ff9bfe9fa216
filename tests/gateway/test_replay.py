"""The recording answers known questions with the chosen candidate's own words, and invents nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.gateway.client import ask, events_of, row
from tests.gateway.conftest import Served
from tests.gateway.pool import POOL, make_deployment
from turnout.core import ConfigError, OutcomeTable, Query
from turnout.gateway.config import Config, demo_config
from turnout.gateway.lifecycle import running
from turnout.gateway.providers.recording import Recorded, Recording, recording_of
from turnout.gateway.providers.replay import pieces

ANSWER = "Because 2 + 2 = 4: caf\u00e9.\nThat is all there is to it."


def make_table(**changes: object) -> OutcomeTable:
    values = {
        "queries": [Query(id="a", text="an  easy\nquestion"), Query(id="b", text="why?")],
        "candidates": POOL,
        "query_index": [0, 0, 1, 1, 1],
        "candidate_index": [0, 1, 0, 1, 1],
        "sample": [0, 0, 0, 0, 1],
        "quality": [1.0, 1.0, 0.0, 1.0, 1.0],
        "input_tokens": [5, 5, 3, 3, 3],
        "output_tokens": [20, 9, float("nan"), 4, 4],
        "extras": {"answer": [ANSWER, "large says", "no tokens known", None, "second sample"]},
    }
    return OutcomeTable(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("replay")
    make_table().save(folder / "table")
    config = demo_config("in memory", folder / "table", port=0, ledger=folder / "ledger.sqlite")
    with running(config, deployment=make_deployment()) as ready:
        yield Served(ready.base_url, folder / "ledger.sqlite")


@pytest.fixture
def official(replay: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=replay.base_url, api_key="none", max_retries=0, timeout=20) as made:
        yield made


def question(text: str) -> list:
    return [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]


def test_a_known_question_gets_the_chosen_candidates_own_answer(
    official: openai.OpenAI, replay: Served
) -> None:
    raw = official.chat.completions.with_raw_response.create(
        model="turnout/auto", messages=question(" an easy   question ")
    )
    completion = raw.parse()
    assert completion.choices[0].message.content == ANSWER
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == raw.headers["x-turnout-model"] == "small"
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (5, 20)
    assert raw.headers["x-turnout-replay"] == "true"
    assert raw.headers["x-turnout-usage-estimated"] == "true"
    found = row(replay.ledger, raw.headers["x-turnout-decision-id"])
    assert (found["is_replay"], found["usage_estimated"], found["provider"]) == (1, 1, "recorded")
    assert found["usd"] == pytest.approx((5 * 0.1 + 20 * 0.4) / 1e6)


def test_a_named_candidate_answers_for_itself(official: openai.OpenAI) -> None:
    completion = official.chat.completions.create(model="large", messages=question("an easy question"))
    assert completion.choices[0].message.content == "large says"


def test_text_parts_are_one_question(replay: Served) -> None:
    parts = [{"type": "text", "text": "an easy"}, {"type": "text", "text": "question"}]
    assert ask(replay.base_url, messages=[{"role": "user", "content": parts}]).status == 200


def test_a_stream_replays_the_answer_in_several_chunks(official: openai.OpenAI) -> None:
    with official.chat.completions.create(
        model="turnout/auto",
        messages=question("an easy question"),
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    *text, last = chunks
    assert [chunk.choices[0].delta.role for chunk in text] == ["assistant"] + [None] * (len(text) - 1)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in text) == ANSWER
    assert len(text) >= 4
    assert [chunk.choices[0].finish_reason for chunk in text] == [None] * (len(text) - 1) + ["stop"]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 25
    assert len({(chunk.id, chunk.model, chunk.created) for chunk in chunks}) == 1


def test_a_stream_without_the_option_has_no_usage_chunk_but_is_accounted(replay: Served) -> None:
    answer = ask(replay.base_url, messages=question("an easy question"), stream=True)
    events = events_of(answer.body)
    assert events[-1] == "[DONE]"
    assert not any('"usage"' in event for event in events)
    assert answer.headers["x-turnout-usage-estimated"] == "true"
    assert row(replay.ledger, answer.decision_id)["output_tokens"] == 20


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_unknown_question_names_the_way_to_a_real_provider(replay: Served, is_stream: bool) -> None:
    answer = ask(replay.base_url, messages=question("what is new?"), stream=is_stream)
    assert (answer.status, answer.error["code"]) == (404, "replay_unknown_question")
    assert "kind 'openai'" in answer.error["message"]
    assert "base_url" in answer.error["message"]
    assert row(replay.ledger, answer.decision_id)["attempts"] == 1


def test_an_answer_that_was_not_recorded_is_not_taken_from_another(replay: Served) -> None:
    answer = ask(replay.base_url, messages=question("why?"))
    assert answer.headers["x-turnout-chosen"] == "large"
    assert (answer.status, answer.error["code"]) == (404, "replay_missing_answer")
    assert "'large'" in answer.error["message"]


def test_unknown_usage_is_left_out_and_estimated_in_the_ledger(replay: Served) -> None:
    answer = ask(replay.base_url, model="small", messages=question("why?"))
    assert "usage" not in answer.json
    found = row(replay.ledger, answer.decision_id)
    assert (found["output_tokens"], found["usage_estimated"]) == (4, 1)


def test_the_first_sample_counts() -> None:
    found = recording_of(make_table(), where="t").find("why?")
    assert found is not None
    assert found["large"] == Recorded(answer=None, input_tokens=3, output_tokens=4)


def test_a_table_without_answers_cannot_be_replayed(tmp_path: Path) -> None:
    make_table(extras={}).save(tmp_path / "table")
    config: Config = demo_config("in memory", tmp_path / "table", port=0, ledger=tmp_path / "l.sqlite")
    with pytest.raises(ConfigError, match="column 'answer'"), running(config, deployment=make_deployment()):
        pass


def test_a_recording_can_be_given_as_a_mapping() -> None:
    recording = Recording(answers={"a  b": {"small": Recorded(answer="x")}}, where="mine")
    assert (len(recording), recording.find("a b") is not None, recording.find("A b")) == (1, True, None)


@pytest.mark.parametrize("text", ["", "a", "ab", "x" * 23, "x" * 24, "x" * 25, ANSWER])
def test_pieces_join_to_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text
    assert len(pieces(text)) >= min(2, len(text))
