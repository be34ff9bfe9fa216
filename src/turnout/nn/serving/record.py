"""This module runs every variant of local models on questions and writes down what came of it.

Quality is measured by grading the answers, cost by counting the FLOPs that were executed, at a stated price;
nothing is typed in. Greedy, one question at a time, so that a row says what that question alone would cost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.candidate import Candidate, PriceCard
from turnout.core.errors import InputError, sentence
from turnout.core.generation import Event, Finished, Generation, Piece
from turnout.core.grading import Grade, exact
from turnout.core.outcomes import Floats, OutcomeTable
from turnout.core.progress import Progress, silent
from turnout.core.query import Query
from turnout.core.validation import check_number
from turnout.nn.flops import executed_flops
from turnout.nn.serving.local import LocalModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Exercise:
    """A question with its right answer."""

    query: Query
    reference: str
    split: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one variant did on one question."""

    answer: str
    input_tokens: int
    output_tokens: int
    flops: int
    latency_s: float


def record(
    models: Sequence[LocalModel],
    exercises: Sequence[Exercise],
    *,
    usd_per_pflop: float,
    max_new_tokens: int = 64,
    grade: Grade = exact,
    progress: Progress = silent,
) -> OutcomeTable:
    """Return the outcome table of every variant of `models` on `exercises`.

    `usd_per_pflop` is the price of 1e15 executed floating-point operations in USD; the extras `answer` and
    `flops` hold what was said and what was counted. Each candidate gets the price card per token that fits
    its own counts best. Raises `InputError` where there is nothing to run.
    """
    check_number("record: usd_per_pflop", usd_per_pflop, low=0.0, allow_low=False)
    places = [(model, name) for model in models for name in model.variants]
    if not places or not exercises:
        raise InputError(sentence("record", allowed="models and exercises", got="none"))
    runs: list[list[Run]] = []
    for at, (model, name) in enumerate(places):
        runs.append([])
        for done, exercise in enumerate(exercises):
            prompt = model.prompt([{"role": "user", "content": exercise.query.words}])
            runs[-1].append(run_once(model, name, prompt, max_new_tokens=max_new_tokens))
            progress("recording", at * len(exercises) + done + 1, len(places) * len(exercises))
    candidates = [
        _priced(model.candidate(name), rows, usd_per_pflop)
        for (model, name), rows in zip(places, runs, strict=True)
    ]
    return _table(exercises, candidates, runs, usd_per_pflop=usd_per_pflop, grade=grade)


def run_once(model: LocalModel, variant: str, prompt: str, *, max_new_tokens: int) -> Run:
    """Answer one prompt greedily in this thread, counting what was executed."""
    heard: list[Event] = []
    request = Generation(prompt=prompt, variant=variant, max_new_tokens=max_new_tokens)
    started_s = time.perf_counter()
    _, flops = executed_flops(lambda: model.engine.run_alone(request, heard.append))
    latency_s = time.perf_counter() - started_s
    end = heard[-1]
    assert isinstance(end, Finished)  # `run_alone` raises where there is no answer
    return Run(
        answer="".join(event.text for event in heard if isinstance(event, Piece)),
        input_tokens=end.input_tokens,
        output_tokens=end.output_tokens,
        flops=flops,
        latency_s=latency_s,
    )


def _priced(candidate: Candidate, runs: Sequence[Run], usd_per_pflop: float) -> Candidate:
    """Return the candidate with the tariff, not negative, that explains its costs best."""
    tokens_N2 = np.array([[run.input_tokens, run.output_tokens] for run in runs], dtype=np.float64)
    usd_N = _usd(runs, usd_per_pflop)
    weights, *_ = np.linalg.lstsq(tokens_N2, usd_N, rcond=None)
    if weights.min() < 0:
        # One kind of token then explains nothing that the other does not; both get the same price.
        weights = np.full(2, usd_N.sum() / tokens_N2.sum())
    card = PriceCard(input_usd_per_mtok=float(weights[0]) * 1e6, output_usd_per_mtok=float(weights[1]) * 1e6)
    return candidate.with_price_card(card)


def _usd(runs: Sequence[Run], usd_per_pflop: float) -> Floats:
    return np.array([run.flops for run in runs], dtype=np.float64) / 1e15 * usd_per_pflop


def _table(
    exercises: Sequence[Exercise],
    candidates: Sequence[Candidate],
    runs: Sequence[Sequence[Run]],
    *,
    usd_per_pflop: float,
    grade: Grade,
) -> OutcomeTable:
    flat = [run for rows in runs for run in rows]
    references = [exercise.reference for exercise in exercises]
    return OutcomeTable(
        queries=[exercise.query for exercise in exercises],
        candidates=candidates,
        query_index=np.tile(np.arange(len(exercises)), len(candidates)),
        candidate_index=np.repeat(np.arange(len(candidates)), len(exercises)),
        quality=[
            grade(run.answer, reference)
            for rows in runs
            for run, reference in zip(rows, references, strict=True)
        ],
        cost_usd=_usd(flat, usd_per_pflop),
        input_tokens=[run.input_tokens for run in flat],
        output_tokens=[run.output_tokens for run in flat],
        latency_s=[run.latency_s for run in flat],
        splits=[exercise.split for exercise in exercises],
        references=references,
        extras={"answer": [run.answer for run in flat], "flops": [float(run.flops) for run in flat]},
    )
