from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from turnout.core.errors import InputError, UnknownNameError
from turnout.datasets.procedural import ALPHABET, LETTERS, TASKS, Question, questions

# Each task's rule, written a second time from its meaning.
RULES: dict[str, Callable[[str], str]] = {
    "add": lambda text: str(sum(int(part) for part in text.split("+"))),
    "copy": lambda text: text,
    "count": lambda text: str(len([letter for letter in text if letter == "a"])),
    "largest": lambda text: sorted(text)[-1],
    "modulo": lambda text: str(sum(map(int, text)))[-1],
    "parity": lambda text: ("even", "odd")[text.count("1") % 2],
    "reverse": lambda text: "".join(reversed(text)),
    "shift": lambda text: text.translate(str.maketrans(LETTERS, LETTERS[1:] + LETTERS[0])),
    "sort": lambda text: "".join(sorted(text)),
    "subtract": lambda text: str(int(text.split("-")[0]) - int(text.split("-")[1])),
}


def draw(task: str, seed: int = 0) -> list[Question]:
    return questions(task, count=200, levels=[1, 2, 5], rng=np.random.default_rng(seed))


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_answer_follows_the_rule(task: str) -> None:
    for question in draw(task):
        name, _, rest = question.prompt.partition(":")
        assert (name, rest[-1]) == (task, "=")
        assert question.answer == RULES[task](rest[:-1])
        assert set(question.prompt + question.answer) <= set(ALPHABET)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_seed_decides_the_questions_and_every_level_occurs(task: str) -> None:
    assert draw(task) == draw(task)
    assert draw(task) != draw(task, seed=1)
    assert {question.level for question in draw(task)} == {1, 2, 5}


def test_an_unknown_task_and_a_level_that_is_none_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UnknownNameError, match="reverse"):
        questions("revers", count=1, levels=[1], rng=rng)
    with pytest.raises(InputError, match="at least 1"):
        questions("add", count=1, levels=[], rng=rng)
    with pytest.raises(InputError, match="at least 1"):
        questions("add", count=1, levels=[0], rng=rng)
