"""This module splits tables without leakage, and finds it in the splits of others.

A router that has seen a test query, or one that differs in a word, is graded on its memory. The default
splitter keeps such texts together; a foreign split is checked, and fails loudly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from turnout.core.errors import LeakageError, sentence
from turnout.core.validation import check_number
from turnout.evaluation.duplicates import THRESHOLD, find_duplicates, near_duplicates

if TYPE_CHECKING:
    from turnout.core.outcomes import Bools, Ints, OutcomeTable
    from turnout.evaluation.duplicates import Duplicates

NEAR_TOLERANCE = 0.01
"""Share of the test queries that may have a near-same text in train; equal texts are never tolerated."""
NUM_EXAMPLES = 3


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class LeakageCheck:
    """What two tables share."""

    num_train: int
    num_test: int
    exact: int
    """Test queries whose text stands in train, but for case and white space."""
    near: int
    """Further test queries with a nearly equal text in train."""
    unreadable: int
    """Test queries without text, which nobody can check."""
    examples: tuple[tuple[str, str], ...]
    """Ids (train, test) of some of the pairs; never their texts."""
    near_tolerance: float
    is_allowed: bool
    """Whether leakage was allowed by the caller."""

    @property
    def is_leaking(self) -> bool:
        """Whether an equal text stands on both sides, or too many nearly equal ones."""
        return self.exact > 0 or self.near > self.near_tolerance * self.num_test

    def __str__(self) -> str:
        return (
            f"{self.exact} of {self.num_test} test queries stand in train word for word, "
            f"{self.near} more nearly so"
        )


def split(table: OutcomeTable, shares: Mapping[str, float], *, seed: int) -> dict[str, OutcomeTable]:
    """Cut a table into named parts of about these shares; same and nearly same texts stay together."""
    groups = near_duplicates([query.content for query in table.queries])
    return table.split_by_query(shares, seed=seed, groups=groups.tolist())


def check_split(
    train: OutcomeTable,
    test: OutcomeTable,
    *,
    near_tolerance: float = NEAR_TOLERANCE,
    allow_leakage: bool = False,
) -> LeakageCheck:
    """Compare the texts of two tables; raises `LeakageError` when the split leaks and is not allowed to."""
    check_number("check_split: near_tolerance", near_tolerance, low=0.0, high=1.0)
    check = _compare(train, test, near_tolerance, allow_leakage)
    if check.is_leaking and not allow_leakage:
        pairs = ", ".join(f"{left!r} and {right!r}" for left, right in check.examples)
        raise LeakageError(
            sentence(
                f"the split leaks: {check} (for example train and test ids {pairs})",
                allowed=f"no equal text and at most {near_tolerance:.0%} nearly equal ones",
                do="split with turnout.evaluation.split, or allow it explicitly and have the report say so",
            )
        )
    return check


def _compare(
    train: OutcomeTable, test: OutcomeTable, near_tolerance: float, allow_leakage: bool
) -> LeakageCheck:
    texts = [query.content for table in (train, test) for query in table.queries]
    found = find_duplicates(texts, threshold=THRESHOLD)
    num_train = len(train.queries)
    train_Q, test_Q = found.exact_Q[:num_train], found.exact_Q[num_train:]
    is_exact_Q = np.isin(test_Q, train_Q)
    partner_Q = _near_partners(found, train_Q, test_Q)
    is_near_Q = ~is_exact_Q & (partner_Q >= 0)
    return LeakageCheck(
        num_train=num_train,
        num_test=len(test.queries),
        exact=int(is_exact_Q.sum()),
        near=int(is_near_Q.sum()),
        unreadable=int((test_Q < 0).sum()),
        examples=_examples(train, test, np.where(is_exact_Q, test_Q, partner_Q), train_Q, is_exact_Q),
        near_tolerance=near_tolerance,
        is_allowed=allow_leakage,
    )


def _near_partners(found: Duplicates, train_Q: Ints, test_Q: Ints) -> Ints:
    """Return for each test query the number of a nearly equal train text, -1 without one."""
    size = int(found.exact_Q.max(initial=-1)) + 1
    in_train = np.zeros(size, dtype=np.bool_)
    in_train[train_Q[train_Q >= 0]] = True
    partner = np.full(size + 1, -1, dtype=np.int64)
    for here, there in ((found.first_N, found.second_N), (found.second_N, found.first_N)):
        crosses = in_train[there]
        partner[here[crosses]] = there[crosses]
    partner_Q: Ints = partner[np.maximum(test_Q, -1)]
    return partner_Q


def _examples(
    train: OutcomeTable, test: OutcomeTable, wanted_Q: Ints, train_Q: Ints, is_exact_Q: Bools
) -> tuple[tuple[str, str], ...]:
    rows = [*np.flatnonzero(is_exact_Q), *np.flatnonzero(~is_exact_Q & (wanted_Q >= 0))][:NUM_EXAMPLES]
    return tuple(
        (
            str(train.queries[int(np.flatnonzero(train_Q == wanted_Q[row])[0])].id),
            str(test.queries[int(row)].id),
        )
        for row in rows
    )
