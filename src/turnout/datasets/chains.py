"""This module makes questions that need as many steps one after another as they are long.

A letter is sent through a chain of fixed permutations, each named by a digit. No permutation undoes or
commutes with the others in general, so nothing short of walking the chain answers it; a network that can walk
one step a block needs a block a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.core.rng import make_rng
from turnout.core.validation import check_count
from turnout.datasets.procedural import LETTERS, Question

FUNCTIONS = "01234"
"""The names of the permutations."""


def _tables() -> dict[str, str]:
    rng = make_rng(0, "chains")
    return {name: "".join(LETTERS[i] for i in rng.permutation(len(LETTERS))) for name in FUNCTIONS}


TABLES = _tables()
"""By name, what each letter of `LETTERS` becomes; the same in every process."""


def chains(*, count: int, levels: Sequence[int], rng: np.random.Generator) -> list[Question]:
    """Return `count` questions such as `chain:c041=`: c through 0, then 4, then 1; the answer is a letter.

    A level, drawn evenly from `levels`, is the number of steps. Raises `InputError` for no level.
    """
    check_count("chains: count", count)
    if not levels or min(levels) < 1:
        raise InputError(sentence("chains: levels", allowed="one or more of at least 1", got=levels))
    return [_chain(rng, int(level)) for level in rng.choice(np.asarray(levels), size=count)]


def walked(question: Question) -> str:
    """Return the letter after each step of a question's chain; the last one is its answer."""
    inside = question.prompt.removeprefix("chain:").removesuffix("=")
    letter, found = inside[0], []
    for name in inside[1:]:
        letter = TABLES[name][LETTERS.index(letter)]
        found.append(letter)
    return "".join(found)


def _chain(rng: np.random.Generator, level: int) -> Question:
    start = LETTERS[int(rng.integers(len(LETTERS)))]
    names = "".join(FUNCTIONS[i] for i in rng.integers(len(FUNCTIONS), size=level))
    prompt = f"chain:{start}{names}="
    bare = Question(task="chain", prompt=prompt, answer="", level=level)
    return Question(task="chain", prompt=prompt, answer=walked(bare)[-1], level=level)
