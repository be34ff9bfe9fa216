from __future__ import annotations

import itertools

import numpy as np
import pytest

from turnout.core.errors import InputError
from turnout.datasets.chains import FUNCTIONS, TABLES, chains, walked
from turnout.datasets.procedural import ALPHABET, LETTERS


def test_an_answer_is_the_letter_sent_through_every_step_in_order() -> None:
    for question in chains(count=200, levels=[1, 2, 5], rng=np.random.default_rng(0)):
        inside = question.prompt.removeprefix("chain:").removesuffix("=")
        letter = inside[0]
        for name in inside[1:]:
            letter = letter.translate(str.maketrans(LETTERS, TABLES[name]))
        assert question.answer == letter == walked(question)[-1]
        assert len(inside) - 1 == question.level == len(walked(question))
        assert set(question.prompt + question.answer) <= set(ALPHABET)


def test_the_tables_are_permutations_that_no_order_and_no_shorter_chain_replaces() -> None:
    assert all(sorted(table) == list(LETTERS) != list(table) for table in TABLES.values())
    then = {
        (a, b): "".join(TABLES[b][LETTERS.index(letter)] for letter in TABLES[a])
        for a, b in itertools.product(FUNCTIONS, repeat=2)
    }
    assert len(set(then.values())) == len(FUNCTIONS) ** 2
    assert not set(then.values()) & {*TABLES.values(), LETTERS}


def test_a_seed_decides_the_questions_and_no_level_is_refused() -> None:
    first, again, other = (
        chains(count=50, levels=[3], rng=np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert first == again != other
    for levels in ([], [0]):
        with pytest.raises(InputError, match="at least 1"):
            chains(count=1, levels=levels, rng=np.random.default_rng(0))
