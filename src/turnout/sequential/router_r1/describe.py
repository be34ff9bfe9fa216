"""This module describes the pool to the policy, one line per model, from tariffs and recorded outcomes.

The policy reads the lines in its prompt, so a model that is added today needs a line and no training, as
in S7, Router-R1 (arXiv 2506.09033).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.outcomes import Floats, OutcomeTable

Description = tuple[str, str]
"""A candidate's name and its line."""

_EXAMPLE_CHARS = 80
_MIN_QUERIES = 5


def describe_pool(
    candidates: Sequence[Candidate], table: OutcomeTable | None = None, *, examples: bool = True
) -> tuple[Description, ...]:
    """Return a line for every candidate.

    Parameters
    ----------
    candidates:
        The pool.
    table:
        Outcomes to take strengths, cost and latency from; give the training part only. A candidate that it
        does not hold gets what its own description says.
    examples:
        Whether to quote a question that a candidate got right and most others got wrong.
    """
    return tuple((candidate.name, _line(candidate, table, examples)) for candidate in candidates)


def _line(candidate: Candidate, table: OutcomeTable | None, examples: bool) -> str:
    parts = [*_tariff(candidate)]
    if table is not None and candidate.name in table.names:
        parts += _record(table, table.names.index(candidate.name), examples)
    return "; ".join(parts) or "nothing is known of it"


def _tariff(candidate: Candidate) -> list[str]:
    parts = []
    card = candidate.price_card
    if card is not None:
        parts.append(
            f"{card.input_usd_per_mtok:g} in / {card.output_usd_per_mtok:g} out usd per million tokens"
        )
    if candidate.context_tokens is not None:
        parts.append(f"context {candidate.context_tokens} tokens")
    if candidate.capabilities:
        parts.append("can do " + ", ".join(sorted(candidate.capabilities)))
    parts += [f"{key} {_short(value)}" for key, value in sorted(candidate.descriptors.items())]
    return parts


def _record(table: OutcomeTable, m: int, examples: bool) -> list[str]:
    quality_Q = table.quality_QM[:, m]
    parts = []
    if np.isfinite(quality_Q).any():
        parts.append(f"right {_mean(quality_Q):.0%} of the time")
        best, worst = _strengths(table, m)
        parts += [f"strong in {best}"] if best else []
        parts += [f"weak in {worst}"] if worst else []
    for values_QM, form in (
        (table.cost_usd_QM, "{:.2g} usd a call"),
        (table.latency_s_QM, "{:.2g} s a call"),
    ):
        mean = _mean(values_QM[:, m])
        parts += [form.format(mean)] if np.isfinite(mean) else []
    example = _example(table, m) if examples else None
    return parts + ([f"got right: {example}"] if example else [])


def _strengths(table: OutcomeTable, m: int) -> tuple[str | None, str | None]:
    """Return the tasks in which a candidate is furthest above and below the pool, where there are tasks."""
    tasks = np.array(["" if task is None else task for task in table.tasks], dtype=object)
    gain: dict[str, float] = {}
    for task in sorted(set(tasks) - {""}):
        rows_QM = table.quality_QM[tasks == task]
        if np.isfinite(rows_QM[:, m]).sum() >= _MIN_QUERIES:
            gain[task] = _mean(rows_QM[:, m]) - _mean(rows_QM)
    if len(gain) < 2:
        return None, None
    best, worst = max(gain, key=lambda task: gain[task]), min(gain, key=lambda task: gain[task])
    return best if gain[best] > 0 else None, worst if gain[worst] < 0 else None


def _example(table: OutcomeTable, m: int) -> str | None:
    """Return the short question that this candidate got right and the fewest others did."""
    quality_QM = table.quality_QM
    texts = [query.text or "" for query in table.queries]
    short_Q = np.array([0 < len(text) <= _EXAMPLE_CHARS for text in texts])
    fit_Q = short_Q & (quality_QM[:, m] >= 0.999)
    if not fit_Q.any():
        return None
    others_Q = np.nansum(quality_QM, axis=1)
    q = int(np.argmin(np.where(fit_Q, others_Q, np.inf)))
    return repr(" ".join(texts[q].split()))


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _short(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float | int) else str(value)[:_EXAMPLE_CHARS]
