"""A record gives back what was written, and names the first line that was changed."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest

from tests.sequential.scripted import Scripted, World, query
from turnout.core import ArtifactError, ArtifactVersionError
from turnout.sequential import (
    Bounds,
    Call,
    CallSet,
    Escalate,
    FixedOrder,
    Observed,
    Stop,
    Think,
    Trace,
    audit,
    run,
)
from turnout.sequential.actions import Action
from turnout.sequential.record import from_lines, load, save, to_lines, verify, verify_file
from turnout.sequential.wire import withheld

SECRET = "my password is swordfish"


def traces() -> list[Trace]:
    """Return two traces that hold every kind of event and action."""
    lines: list[Action] = [
        Call(candidate="small"),
        Call(candidate="huge"),
        Think(messages=({"content": SECRET, "role": "user"},), stop=("</a>",)),
        CallSet(calls=(Call(candidate="small", sample=1), Call(candidate="large"))),
        Stop(answer=SECRET),
    ]
    bounds = Bounds(usd=3.0, steps=9)
    world = World(failing=["large"], latency_s=math.nan)
    first = run(world, Scripted(lines=lines), query(SECRET), bounds=bounds, seed=7).trace
    second = run(World(usd={"small": math.nan}), Scripted(lines=[lines[0], Escalate(to="x")]), query()).trace
    return [first, second]


def test_a_record_with_texts_gives_the_same_traces_back(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    head = save(traces(), path, keep_text=True)
    again = load(path)
    assert repr([trace.events for trace in again]) == repr([trace.events for trace in traces()])
    assert [trace.usd for trace in again] == [trace.usd for trace in traces()]
    assert again[0].dead == {"large"}
    assert verify_file(path, head=head) is None


def test_texts_stay_out_unless_asked_for() -> None:
    lines = list(to_lines(traces()))
    whole = "\n".join(lines)
    for word in ("swordfish", "small 0", "how many", "hm"):
        assert word not in whole
    started = json.loads(lines[0])
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    assert started["query"]["text"] == f"[{len(SECRET)} characters, sha256 {digest}]" == withheld(SECRET)
    (first, _) = from_lines(lines)
    assert first.usd == traces()[0].usd
    assert first.observed[0].answer == withheld("small 0")


def test_unknown_is_null_and_comes_back_as_nan() -> None:
    lines = list(to_lines(traces()))
    assert "NaN" not in "".join(lines)
    assert math.isnan(from_lines(lines)[1].observed[0].usd)


def test_what_was_reserved_is_recorded_so_that_the_rest_of_the_budget_comes_back() -> None:
    class Silent(World):
        def observe(self, call: Call) -> Observed:
            return Observed(call=call, error="timed out")

    order = FixedOrder(order=("small", "large"))
    trace = run(Silent(), order, query(), bounds=Bounds(usd=0.15)).trace
    (again,) = from_lines(to_lines([trace], keep_text=True))
    assert (trace.reserved_usd, trace.usd) == (pytest.approx(0.11), 0.0)  # type: ignore[comparison-overlap]
    assert (again.reserved_usd, again.remaining_usd, again.usd) == (
        trace.reserved_usd, trace.remaining_usd, 0.0,
    )  # fmt: skip
    assert repr(again.events) == repr(trace.events)
    assert audit(again, order) is None


def rewrite(line: str, **changes: object) -> str:
    """Return a line with other content and a digest that fits it."""
    body = {**json.loads(line), **changes}
    body.pop("digest")
    dumped = json.dumps(body, sort_keys=True, separators=(",", ":"))
    body["digest"] = hashlib.sha256(dumped.encode()).hexdigest()
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize("line", [1, 3, 8, 12])
def test_a_changed_line_is_named(line: int) -> None:
    lines = list(to_lines(traces(), keep_text=True))
    assert len(lines) > 12
    body = json.loads(lines[line - 1])
    body["event"] = "refused"
    changed = [*lines]
    changed[line - 1] = json.dumps(body, sort_keys=True, separators=(",", ":"))
    fault = verify(changed)
    assert fault is not None
    assert (fault.line, "digest" in fault.why) == (line, True)
    with pytest.raises(ArtifactError, match=f"line {line}"):
        from_lines(changed)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"usd":0.01', '"usd":99,"usd":0.01'),
        ('"usd":0.01', '"usd":1e-2'),
        ('"usd":0.01', '"usd": 0.01'),
        ('"usd":0.01', '"usd":NaN'),
        ('"usd":0.01', '"usd":1e999'),
        ("}", "} "),
        ("small", "sm\\u0061ll"),
    ],
)
def test_a_line_is_compared_as_it_stands_and_not_as_it_reads(old: str, new: str) -> None:
    lines = list(to_lines(traces(), keep_text=True))
    line = next(n for n, text in enumerate(lines) if '"event":"observed"' in text)
    lines[line] = new.join(lines[line].rsplit(old, 1))
    fault = verify(lines)
    assert fault is not None
    assert fault.line == line + 1


@pytest.mark.parametrize("line", [1, 3, 8])
def test_a_line_written_anew_with_its_digest_is_named(line: int) -> None:
    lines = list(to_lines(traces()))
    lines[line - 1] = rewrite(lines[line - 1], why="nothing happened")
    fault = verify(lines)
    assert fault is not None
    assert fault.line == line


def test_lines_that_are_gone_added_or_moved_are_seen() -> None:
    lines = list(to_lines(traces()))
    for wrong, at in (
        (lines[:4] + lines[5:], 5),
        (lines[1:], 1),
        ([*lines[:2], lines[1], *lines[2:]], 3),
        ([lines[0], lines[2], lines[1], *lines[3:]], 2),
    ):
        fault = verify(wrong)
        assert fault is not None
        assert fault.line == at


def test_the_end_is_seen_with_the_head(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    head = save(traces(), path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["digest"] == head
    for wrong in (lines[:-1], [*lines[:-1], rewrite(lines[-1], why="nothing")]):
        assert verify(wrong) is None
        assert verify(wrong, head=head) is not None


def test_what_is_not_a_record_is_refused(tmp_path: Path) -> None:
    assert str(verify(["[1]"])) == "line 1: it is not a JSON object"
    assert verify(["{"]) is not None
    with pytest.raises(ArtifactVersionError, match="1 to 1"):
        verify(['{"format": 2}'])
    with pytest.raises(ArtifactError, match="no record at"):
        load(tmp_path / "missing.jsonl")
    orphan = rewrite(json.loads(json.dumps(next(iter(to_lines(traces()))))), event="ended", how="stop")
    with pytest.raises(ArtifactError, match="no event in line 1"):
        from_lines([orphan])
    assert from_lines([]) == []
