"""This module makes questions whose answers can be checked, for models that are small enough to train.

Ten tasks over plain characters, each a different rule, so that a network cannot serve one with what it
learned of another. A question names its task in its first word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.errors import InputError, UnknownNameError, did_you_mean, sentence
from turnout.core.validation import check_count

LETTERS = "abcdefghij"

Maker = Callable[[np.random.Generator, int], tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One question and the only right answer."""

    task: str
    prompt: str
    """Ends with `=`, after which the answer follows."""
    answer: str
    level: int
    """Difficulty: the number of digits, letters or brackets; at least 1."""


def _digits(rng: np.random.Generator, count: int) -> list[int]:
    return [int(digit) for digit in rng.integers(0, 10, size=count)]


def _letters(rng: np.random.Generator, count: int) -> str:
    return "".join(LETTERS[i] for i in rng.integers(0, len(LETTERS), size=count))


def _join(digits: Sequence[int]) -> str:
    return "".join(str(digit) for digit in digits)


def _add(rng: np.random.Generator, level: int) -> tuple[str, str]:
    a, b = (int(v) for v in rng.integers(0, 10**level, size=2))
    return f"{a}+{b}", str(a + b)


def _subtract(rng: np.random.Generator, level: int) -> tuple[str, str]:
    b, a = sorted(int(v) for v in rng.integers(0, 10**level, size=2))
    return f"{a}-{b}", str(a - b)


def _copy(rng: np.random.Generator, level: int) -> tuple[str, str]:
    text = _letters(rng, level)
    return text, text


def _reverse(rng: np.random.Generator, level: int) -> tuple[str, str]:
    text = _letters(rng, level)
    return text, text[::-1]


def _sort(rng: np.random.Generator, level: int) -> tuple[str, str]:
    digits = _digits(rng, level)
    return _join(digits), _join(sorted(digits))


def _largest(rng: np.random.Generator, level: int) -> tuple[str, str]:
    digits = _digits(rng, level)
    return _join(digits), str(max(digits))


def _count(rng: np.random.Generator, level: int) -> tuple[str, str]:
    text = "".join("ab"[i] for i in rng.integers(0, 2, size=level))
    return text, str(text.count("a"))


def _shift(rng: np.random.Generator, level: int) -> tuple[str, str]:
    text = _letters(rng, level)
    return text, "".join(LETTERS[(LETTERS.index(letter) + 1) % len(LETTERS)] for letter in text)


def _parity(rng: np.random.Generator, level: int) -> tuple[str, str]:
    bits = rng.integers(0, 2, size=level)
    return _join([int(bit) for bit in bits]), "odd" if int(bits.sum()) % 2 else "even"


def _modulo(rng: np.random.Generator, level: int) -> tuple[str, str]:
    digits = _digits(rng, level)
    return _join(digits), str(sum(digits) % 10)


TASKS: dict[str, Maker] = {
    "add": _add,
    "copy": _copy,
    "count": _count,
    "largest": _largest,
    "modulo": _modulo,
    "parity": _parity,
    "reverse": _reverse,
    "shift": _shift,
    "sort": _sort,
    "subtract": _subtract,
}
"""The tasks by name: sums, differences, copies, reversals, ... of `level` characters."""

ALPHABET = "".join(sorted(set("".join(TASKS) + LETTERS + "0123456789+-=: evnod")))
"""Every character that a question or an answer may hold."""


def questions(task: str, *, count: int, levels: Sequence[int], rng: np.random.Generator) -> list[Question]:
    """Return `count` questions of a task, each at a level drawn evenly from `levels`.

    Raises `UnknownNameError` for a task that there is not, `InputError` for no level.
    """
    if task not in TASKS:
        raise UnknownNameError(
            sentence(f"no procedural task is called {task!r}", do=did_you_mean(task, TASKS))
        )
    check_count("questions: count", count)
    if not levels or min(levels) < 1:
        raise InputError(sentence("questions: levels", allowed="one or more of at least 1", got=levels))
    drawn = rng.choice(np.asarray(levels), size=count)
    return [_question(task, int(level), rng) for level in drawn]


def _question(task: str, level: int, rng: np.random.Generator) -> Question:
    inside, answer = TASKS[task](rng, level)
    return Question(task=task, prompt=f"{task}:{inside}=", answer=answer, level=level)
