from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.cases import make_table
from turnout.core import LeakageError
from turnout.datasets import load
from turnout.evaluation import check_split, near_duplicates, split

LONG = "the {} of the red house at the end of the long road beyond the river asked us what the time was"


def table_of(texts: list[str | None], prefix: str) -> object:
    return make_table(np.ones((len(texts), 1)), texts=texts, prefix=prefix)


def test_a_clean_split_passes_and_says_what_it_saw() -> None:
    check = check_split(make_table([[1.0]] * 5, prefix="a"), make_table([[1.0]] * 3, prefix="b"))
    assert (check.num_train, check.num_test, check.exact, check.near) == (5, 3, 0, 0)
    assert not check.is_leaking


def test_one_equal_text_fails_with_counts_and_ids_but_no_text() -> None:
    train = make_table([[1.0]] * 3, texts=["alpha beta", "secret words here", "gamma"], prefix="a")
    test = make_table([[1.0]] * 2, texts=["delta epsilon", "Secret  Words here"], prefix="b")
    with pytest.raises(LeakageError, match="1 of 2") as caught:
        check_split(train, test)
    assert "'a1' and 'b1'" in str(caught.value)
    assert "secret" not in str(caught.value).lower()


def test_nearly_equal_texts_are_tolerated_up_to_a_share() -> None:
    train = make_table([[1.0]], texts=[LONG.format("owner")], prefix="a")
    texts: list[str | None] = [LONG.format("tenant"), *(f"unrelated {k} words {k * k}" for k in range(99))]
    test = make_table([[1.0]] * 100, texts=texts, prefix="b")
    check = check_split(train, test)
    assert (check.exact, check.near, check.examples) == (0, 1, (("a0", "b0"),))
    with pytest.raises(LeakageError):
        check_split(train, test, near_tolerance=0.0)


def test_leakage_may_be_allowed_and_stays_on_record() -> None:
    table = make_table([[1.0]] * 2)
    check = check_split(table, table, allow_leakage=True)
    assert check.is_leaking
    assert check.is_allowed
    assert check.exact == 2


def test_queries_without_text_are_counted_as_unchecked() -> None:
    blank: list[str | None] = [None, None]
    table = make_table([[1.0]] * 2, texts=blank)
    assert check_split(table, table).unreadable == 2


def test_the_default_splitter_keeps_copies_together_and_follows_its_seed() -> None:
    texts: list[str | None] = []
    for k in range(60):
        texts += [f"question {k} about {k * 7919}", f"Question  {k} about {k * 7919}"]
    table = make_table(np.ones((120, 1)), texts=texts)
    parts = split(table, {"train": 0.5, "test": 0.5}, seed=3)
    assert {name: len(part.queries) for name, part in parts.items()} == {"train": 60, "test": 60}
    assert not check_split(parts["train"], parts["test"]).is_leaking
    again = split(table, {"train": 0.5, "test": 0.5}, seed=3)
    assert parts["test"].fingerprint == again["test"].fingerprint
    other = split(table, {"train": 0.5, "test": 0.5}, seed=4)
    assert parts["test"].fingerprint != other["test"].fingerprint


@pytest.mark.parametrize("name", ["reason18", "open9"])
def test_the_shipped_splits_do_not_leak_and_their_templates_do_not_clump(name: str) -> None:
    table = load(name)
    groups = near_duplicates([query.text for query in table.queries])
    assert np.bincount(groups).max() <= 3
    check_split(table.select(split="train"), table.select(split="test"))
