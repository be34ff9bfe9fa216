"""This module holds what is known of the past: who was asked what, how good it was, what it cost.

An `OutcomeTable` is long and sparse: one row per (query, candidate, sample). Unknown is NaN in memory
and null on disk, and never 0. The dense views average over samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from turnout.core.candidate import Candidate
from turnout.core.errors import InputError, TableError, UnknownNameError, did_you_mean, sentence
from turnout.core.fingerprint import fingerprint_of
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.rows import MEASURES, check_table

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@final
class OutcomeTable:
    """Recorded outcomes of candidates on queries.

    Parameters
    ----------
    queries, candidates:
        What the rows point to; ids and names are unique.
    query_index, candidate_index:
        Integers of shape (N,): row n is about `queries[query_index[n]]` and `candidates[candidate_index[n]]`.
    quality:
        Shape (N,), in [0, 1], NaN where unknown.
    sample:
        Shape (N,), the repetition number; 0 everywhere when omitted.
    cost_usd, input_tokens, output_tokens, latency_s:
        Shape (N,), not negative, NaN where unknown; all unknown when omitted.
    splits:
        One name per query (`train`, `test`, ...) or None where none is fixed.
    references:
        One reference answer per query or None; never shown to a router.
    extras:
        Further recorded columns of shape (N,), such as `answer`; carried along, not interpreted.

    Raises
    ------
    TableError
        If a value is out of range, a (query, candidate, sample) stands twice, or lengths differ.
    """

    def __init__(
        self,
        *,
        queries: Sequence[Query],
        candidates: Sequence[Candidate],
        query_index: npt.ArrayLike,
        candidate_index: npt.ArrayLike,
        quality: npt.ArrayLike,
        sample: npt.ArrayLike | None = None,
        cost_usd: npt.ArrayLike | None = None,
        input_tokens: npt.ArrayLike | None = None,
        output_tokens: npt.ArrayLike | None = None,
        latency_s: npt.ArrayLike | None = None,
        splits: Sequence[str | None] | None = None,
        references: Sequence[str | None] | None = None,
        extras: Mapping[str, Sequence[object]] | None = None,
    ) -> None:
        self.queries = tuple(queries)
        self.candidates = tuple(candidates)
        self.query_index = np.asarray(query_index, dtype=np.int64)
        self.candidate_index = np.asarray(candidate_index, dtype=np.int64)
        num_rows = self.query_index.size
        self.sample = np.zeros(num_rows, np.int64) if sample is None else np.asarray(sample, np.int64)
        self.quality = _column("quality", quality, num_rows)
        self.cost_usd = _column("cost_usd", cost_usd, num_rows)
        self.input_tokens = _column("input_tokens", input_tokens, num_rows)
        self.output_tokens = _column("output_tokens", output_tokens, num_rows)
        self.latency_s = _column("latency_s", latency_s, num_rows)
        self.splits = _per_query("splits", splits, len(self.queries))
        self.references = _per_query("references", references, len(self.queries))
        self.extras = {name: _extra(name, values, num_rows) for name, values in (extras or {}).items()}
        check_table(self)

    def __repr__(self) -> str:
        queries, candidates = len(self.queries), len(self.candidates)
        return f"OutcomeTable({queries} queries x {candidates} candidates, {self.num_rows} rows)"

    @property
    def num_rows(self) -> int:
        """Number of recorded outcomes."""
        return int(self.query_index.size)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Candidate names, in order."""
        return tuple(candidate.name for candidate in self.candidates)

    @property
    def tasks(self) -> tuple[str | None, ...]:
        """The task of each query, in order."""
        return tuple(query.task for query in self.queries)

    @cached_property
    def quality_QM(self) -> Floats:
        """Mean quality over samples, shape (Q, M), NaN where not observed."""
        return self._dense(self.quality)

    @cached_property
    def cost_usd_QM(self) -> Floats:
        """Mean cost in USD over samples, shape (Q, M), NaN where unknown."""
        return self._dense(self.cost_usd)

    @cached_property
    def latency_s_QM(self) -> Floats:
        """Mean latency in seconds over samples, shape (Q, M), NaN where unknown."""
        return self._dense(self.latency_s)

    @cached_property
    def output_tokens_QM(self) -> Floats:
        """Mean output tokens over samples, shape (Q, M), NaN where unknown."""
        return self._dense(self.output_tokens)

    @cached_property
    def observed_QM(self) -> Bools:
        """Whether a quality was recorded, shape (Q, M)."""
        return ~np.isnan(self.quality_QM)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that name the content, whatever the order of rows, queries and candidates."""
        return fingerprint_of(self)

    @property
    def has_costs(self) -> bool:
        """Whether any cost is known."""
        return bool(np.isfinite(self.cost_usd).any())

    def where(self, keep_Q: npt.ArrayLike) -> OutcomeTable:
        """Return the table of the queries whose mask entry is true; candidates stay."""
        mask_Q = _mask("OutcomeTable.where: keep_Q", "Q", keep_Q, len(self.queries))
        if not mask_Q.any():
            raise TableError(
                sentence("OutcomeTable: the selection holds no query", do="check the split or task names")
            )
        rows = mask_Q[self.query_index]
        renumber = np.cumsum(mask_Q) - 1
        return self._take(
            rows, np.flatnonzero(mask_Q), self.candidates, renumber[self.query_index[rows]], None
        )

    def select(
        self,
        *,
        split: str | None = None,
        task: str | None = None,
        ids: Iterable[str] | None = None,
        candidates: Iterable[str] | None = None,
    ) -> OutcomeTable:
        """Return the part with this split, task, query ids and candidate names; None means all.

        Raises `UnknownNameError` for a name the table does not hold.
        """
        keep_Q = np.ones(len(self.queries), np.bool_)
        if split is not None:
            keep_Q &= self._matches("split", split, self.splits)
        if task is not None:
            keep_Q &= self._matches("task", task, self.tasks)
        if ids is not None:
            wanted = set(ids)
            known = {query.id for query in self.queries}
            for name in sorted(wanted - known):
                raise UnknownNameError(
                    sentence("OutcomeTable.select: ids", got=name, do=did_you_mean(name, known))
                )
            keep_Q &= np.array([query.id in wanted for query in self.queries], np.bool_)
        part = self if keep_Q.all() else self.where(keep_Q)
        return part if candidates is None else part._with_candidates(tuple(candidates))

    def split_by_query(
        self, shares: Mapping[str, float], *, seed: int, groups: Sequence[object] | None = None
    ) -> dict[str, OutcomeTable]:
        """Cut into named parts of about these shares; queries of one group stay together.

        `groups` has one hashable entry per query (for example the near-duplicate groups of
        `turnout.evaluation.near_duplicates`); without it every query is its own group.
        """
        keys: list[object] = list(range(len(self.queries))) if groups is None else list(groups)
        return self._split(shares, keys, seed)

    def split_by_task(self, shares: Mapping[str, float], *, seed: int) -> dict[str, OutcomeTable]:
        """Cut into named parts so that every task lies in one part: tests how a router meets new tasks."""
        return self._split(shares, list(self.tasks), seed)

    def with_rows(self, keep_N: npt.ArrayLike) -> OutcomeTable:
        """Return the table of the outcomes whose mask entry is true; queries and candidates stay."""
        mask_N = _mask("OutcomeTable.with_rows: keep_N", "N", keep_N, self.num_rows)
        return self._take(mask_N, np.arange(len(self.queries)), self.candidates, None, None)

    def with_splits(self, splits: Sequence[str | None]) -> OutcomeTable:
        """Return the same outcomes under other split names."""
        return self._replace(splits=splits)

    def with_costs(self, cost_usd: npt.ArrayLike) -> OutcomeTable:
        """Return the same outcomes under other costs, one per row."""
        return self._replace(cost_usd=cost_usd)

    def with_extras(self, extras: Mapping[str, Sequence[object]]) -> OutcomeTable:
        """Return the same outcomes with further recorded columns, one value per row; a taken name goes."""
        return self._replace(extras={**self.extras, **extras})

    def save(self, folder: str | Path) -> Path:
        """Write `queries.parquet`, `outcomes.parquet` and `models.parquet` into `folder`."""
        from turnout.core.parquet import write_table

        return write_table(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> OutcomeTable:
        """Read the folder layout of docs/datasets.md; raises `TableError` with file and row."""
        from turnout.core.parquet import read_table

        return read_table(Path(folder))

    def _matches(self, kind: str, name: str, values: Sequence[str | None]) -> Bools:
        mask = np.array([value == name for value in values], np.bool_)
        if not mask.any():
            known = {value for value in values if value is not None}
            raise UnknownNameError(
                sentence(f"OutcomeTable.select: no query has {kind} {name!r}", do=did_you_mean(name, known))
            )
        return mask

    def _with_candidates(self, names: tuple[str, ...]) -> OutcomeTable:
        position = {name: index for index, name in enumerate(self.names)}
        for name in names:
            if name not in position:
                raise UnknownNameError(
                    sentence("OutcomeTable.select: candidates", got=name, do=did_you_mean(name, position))
                )
        renumber = np.full(len(self.candidates), -1)
        renumber[[position[name] for name in names]] = np.arange(len(names))
        rows = renumber[self.candidate_index] >= 0
        chosen = tuple(self.candidates[position[name]] for name in names)
        every_query = np.arange(len(self.queries))
        return self._take(rows, every_query, chosen, None, renumber[self.candidate_index[rows]])

    def _split(self, shares: Mapping[str, float], keys: list[object], seed: int) -> dict[str, OutcomeTable]:
        if len(keys) != len(self.queries):
            raise InputError(
                sentence(
                    "OutcomeTable: groups", allowed=f"one per query ({len(self.queries)})", got=len(keys)
                )
            )
        part_of = split_groups(keys, shares, seed=seed)
        empty = [name for name in shares if name not in part_of]
        if empty:
            raise TableError(
                sentence(
                    f"OutcomeTable: the part {empty[0]!r} of the split would hold no query",
                    got=f"{len(set(keys))} groups of queries for the shares {dict(shares)}",
                    do="give more queries that differ: same and near-same texts count as one group",
                )
            )
        return {name: self.where(np.array([p == name for p in part_of])) for name in shares}

    def _take(
        self,
        rows: Bools,
        queries: Ints,
        candidates: Sequence[Candidate],
        query_index: Ints | None,
        candidate_index: Ints | None,
    ) -> OutcomeTable:
        return OutcomeTable(
            queries=[self.queries[i] for i in queries],
            candidates=candidates,
            query_index=self.query_index[rows] if query_index is None else query_index,
            candidate_index=self.candidate_index[rows] if candidate_index is None else candidate_index,
            sample=self.sample[rows],
            splits=[self.splits[i] for i in queries],
            references=[self.references[i] for i in queries],
            extras={name: values[rows] for name, values in self.extras.items()},  # type: ignore[misc]
            **{name: getattr(self, name)[rows] for name in MEASURES},
        )

    def _replace(self, **changes: object) -> OutcomeTable:
        values: dict[str, object] = {
            name: getattr(self, name)
            for name in (
                "queries",
                "candidates",
                "query_index",
                "candidate_index",
                "sample",
                "splits",
                "references",
                "extras",
                *MEASURES,
            )
        }
        return OutcomeTable(**{**values, **changes})  # type: ignore[arg-type]

    def _dense(self, column: Floats) -> Floats:
        shape = (len(self.queries), len(self.candidates))
        known = ~np.isnan(column)
        cell = (self.query_index * shape[1] + self.candidate_index)[known]
        size = shape[0] * shape[1]
        total = np.bincount(cell, weights=column[known], minlength=size)
        count = np.bincount(cell, minlength=size)
        dense = np.full(size, np.nan)
        np.divide(total, count, out=dense, where=count > 0)
        dense_QM = dense.reshape(shape)
        dense_QM.flags.writeable = False
        return dense_QM


def split_groups(keys: Sequence[object], shares: Mapping[str, float], *, seed: int) -> list[str]:
    """Assign each entry a part name so that equal keys share a part and parts have about `shares`.

    Groups are shuffled, then each goes to the part that lacks most of its share: exact to one group.
    """
    is_part = all(0 < share <= 1 for share in shares.values())
    if not shares or not is_part or abs(sum(shares.values()) - 1.0) > 1e-9:
        raise InputError(
            sentence("split: shares", allowed="numbers in (0, 1] that sum to 1", got=dict(shares))
        )
    sizes: dict[object, int] = {}
    for key in keys:
        sizes[key] = sizes.get(key, 0) + 1
    order = list(sizes)
    make_rng(seed, "split").shuffle(order)
    names = list(shares)
    target = np.array([shares[name] * len(keys) for name in names])
    filled = np.zeros(len(names))
    part: dict[object, str] = {}
    for key in order:
        best = int(np.argmax((target - filled) / target))
        part[key] = names[best]
        filled[best] += sizes[key]
    return [part[key] for key in keys]


def _mask(where: str, letter: str, keep: npt.ArrayLike, num: int) -> Bools:
    mask: Bools = np.asarray(keep)
    if mask.dtype != np.bool_ or mask.shape != (num,):
        allowed = f"booleans of shape ({letter},) = ({num},)"
        raise InputError(sentence(where, allowed=allowed, got=f"{mask.dtype} of shape {mask.shape}"))
    return mask


def _column(name: str, values: npt.ArrayLike | None, num_rows: int) -> Floats:
    if values is None:
        return np.full(num_rows, np.nan)
    try:
        # A copy that cannot be written to: the fingerprint is computed once.
        column = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TableError(
            sentence(
                f"OutcomeTable: column {name!r}",
                allowed="numbers or NaN for unknown",
                got=str(error),
                do="convert it to numbers, with NaN where nothing was measured",
            )
        ) from error
    if column.shape != (num_rows,):
        raise TableError(
            sentence(
                f"OutcomeTable: column {name!r}", allowed=f"shape (N,) = ({num_rows},)", got=column.shape
            )
        )
    column.flags.writeable = False
    return column


def _extra(name: str, values: Sequence[object], num_rows: int) -> npt.NDArray[np.object_]:
    column = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        column[row] = value  # one by one: a slice would take values that are lists for a matrix
    if len(values) != num_rows:
        raise TableError(
            sentence(f"OutcomeTable: extra {name!r}", allowed=f"{num_rows} values", got=len(values))
        )
    return column


def _per_query(name: str, values: Sequence[str | None] | None, num_queries: int) -> tuple[str | None, ...]:
    column = (None,) * num_queries if values is None else tuple(values)
    if len(column) != num_queries:
        raise TableError(
            sentence(f"OutcomeTable: {name}", allowed=f"one per query ({num_queries})", got=len(column))
        )
    return column
