"""This module joins what the bases of `bench_depth_chains` came to: quality, layers, gains and regret."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.depth_judging import Answers, Floats, interval, of_all, row
from benchmarks.duo_tables import joined
from turnout.core.rng import make_rng
from turnout.datasets.procedural import Question
from turnout.nn.depth.duo import Oracle
from turnout.nn.regret import regret

RIVALS = {
    "dense": "dense",
    "fixed of the same layers": "{}, mix",
    "fixed of whole layers, no fewer": "{}, fixed",
    "fixed of the same floor": "fixed",
}
"""Whom the routers of a kind are compared with: a mix has two fixed skips, drawn so as to spend the same."""


@dataclass(kw_only=True)
class Judged:
    """What one base came to."""

    answers: dict[str, Answers]
    """To the test questions, by who answered."""
    notes: dict[str, Any]
    spent: dict[str, list[tuple[Floats, Floats]]] = field(default_factory=dict)
    """By who decided, one a seed: loss and calls of the questions on which every path was tried."""
    oracle: Oracle | None = None


def save(found: Judged, path: Path) -> None:
    """Write what one base came to, so that a run can go on where it was stopped."""
    body = {
        "answers": {name: [part.tolist() for part in pair] for name, pair in found.answers.items()},
        "notes": found.notes,
        "spent": {
            name: [[part.tolist() for part in pair] for pair in pairs] for name, pairs in found.spent.items()
        },
        "oracle": None
        if found.oracle is None
        else {name: value.tolist() for name, value in vars(found.oracle).items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body), encoding="utf-8")


def load(path: Path) -> Judged:
    """Return what `save` wrote."""
    body = json.loads(path.read_text(encoding="utf-8"))
    oracle = body["oracle"]
    return Judged(
        answers={name: (np.array(pair[0]), np.array(pair[1])) for name, pair in body["answers"].items()},
        notes=body["notes"],
        spent={
            name: [(np.array(pair[0]), np.array(pair[1])) for pair in pairs]
            for name, pairs in body["spent"].items()
        },
        oracle=None if oracle is None else Oracle(**{name: np.array(v) for name, v in oracle.items()}),
    )


def rows(found: Sequence[Judged]) -> dict[str, Any]:
    """Return quality and layers of everybody, a mean over bases, with intervals over questions."""
    every = [with_mixes(one.answers) for one in found]
    dense_Q = _mean(every, "dense")[0]
    return {name: row(_mean(every, name), dense_Q) for name in every[0]}


def gains(found: Sequence[Judged]) -> dict[str, Any]:
    """Return differences, paired by question: right answers and layers."""
    every, lines = [with_mixes(one.answers) for one in found], {}
    for kind in ("own", "shared"):
        for name, rival in RIVALS.items():
            a, b = _mean(every, kind), _mean(every, rival.format(kind))
            lines[f"{kind} minus {name}"] = {
                "quality": interval(a[0] - b[0]),
                "layers": interval(a[1] - b[1]),
            }
    return lines


def with_mixes(answers: Mapping[str, Answers]) -> dict[str, Answers]:
    """Return the answers and, for each kind of router, those of two fixed skips that spend the same.

    One of them has a block more than the other; each question gets one or the other by chance, so that the
    mean is that of the routers. What stands there is the expectation.
    """
    found = dict(answers)
    for kind in ("own", "shared"):
        spent = float(answers[kind][1].mean())
        most = max(calls_Q.max() for name, (_, calls_Q) in answers.items() if name.startswith("fixed "))
        low = min(int(spent), int(most) - 1)
        share = min(spent - low, 1.0)
        pairs = zip(answers[f"fixed {low}"], answers[f"fixed {low + 1}"], strict=True)
        right_Q, calls_Q = ((1 - share) * fewer + share * more for fewer, more in pairs)
        found[f"{kind}, mix"] = (right_Q, calls_Q)
    return found


def regrets(found: Sequence[Judged]) -> list[dict[str, Any]]:
    """Return one line each, over all bases and seeds: distance to the best path of at most as many calls."""
    lines = []
    for name in found[0].spent:
        each = [(pair, one) for one in found for pair in one.spent[name]]
        questions = len(each[0][0][0])
        line = regret(
            name,
            np.concatenate([pair[0] for pair, _ in each]),
            np.concatenate([pair[1] for pair, _ in each]),
            oracle=joined([one.oracle for _, one in each if one.oracle is not None]),
            rng=make_rng(0, "bootstrap"),
            groups_Q=np.tile(np.arange(questions), len(each)),
        )
        lines.append({**dataclasses.asdict(line), "questions": questions})
    return lines


def levels(asked: Sequence[Question], answers: Mapping[str, Answers]) -> list[dict[str, Any]]:
    """Return right answers and layers by the number of steps of a question."""
    level_Q = np.array([question.level for question in asked])
    shown = ("dense", "labels", "shared", "shared, fixed", "fixed", "own")
    lines = []
    for level in np.unique(level_Q):
        here = level_Q == level
        line: dict[str, Any] = {"steps": int(level), "count": int(here.sum())}
        for name in shown:
            right_Q, calls_Q = answers[name]
            line[name] = {"right": float(right_Q[here].mean()), "layers": float(calls_Q[here].mean())}
        lines.append(line)
    return lines


def _mean(every: Sequence[Mapping[str, Answers]], name: str) -> Answers:
    return of_all([answers[name] for answers in every])
