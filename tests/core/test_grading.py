"""Rules that grade an answer beside its reference, on answers as models write them."""

from __future__ import annotations

import time

import pytest

from turnout.core.grading import GRADES, chosen_letter, last_number


@pytest.mark.parametrize(
    ("rule", "answer", "reference", "grade"),
    [
        ("exact", " 12\n", "12", 1.0),
        ("exact", "1 2", "12", 0.0),
        ("contains", "The capital of France is  PARIS.", "paris", 1.0),
        ("contains", "Comparisons are odious", "paris", 0.0),
        ("contains", "It is 112 in all", "12", 0.0),
        ("contains", "\u7b54\u6848\u662f\u5317\u4eac\u5e02", "\u5317\u4eac", 1.0),
        ("contains", "It costs $5 (five)", "$5", 1.0),
        ("numeric", "So 3 + 4 = 7, and the answer is $1,234.50.", "1234.5", 1.0),
        ("numeric", r"We get \boxed{\frac{1}{2}} hm, \boxed{42} in 3 steps", "42", 1.0),
        ("numeric", "It is 3/4 of them", "0.75", 1.0),
        ("numeric", "x = \u22123", "-3", 1.0),
        ("numeric", "5-3", "3", 1.0),
        ("numeric", "about 1e3 times", "1000", 1.0),
        ("numeric", "3.14", "3.14159", 0.0),
        ("numeric", "no number here", "0", 0.0),
        ("numeric", "1/0", "1", 0.0),
        ("choice", "B", "b", 1.0),
        ("choice", "The correct answer is **(C)**, since A is wrong.", "C", 1.0),
        ("choice", "The answer is A. Option B does not hold.", "A", 1.0),
        ("choice", "Answer: $\\boxed{\\text{D}}$", "(D)", 1.0),
        ("choice", "B. because it rains", "B", 1.0),
        ("choice", "Let us think. I would say it rains.\n\nC", "C", 1.0),
        ("choice", "The answer is A dog, probably", "A", 0.0),
        ("choice", "I do not know", "A", 0.0),
        ("regex", "order no. AB-12 sent", r"\b[A-Z]{2}-\d+\b", 1.0),
        ("regex", "nothing", r"^\d+$", 0.0),
    ],
)
def test_rules_on_answers_as_models_write_them(rule: str, answer: str, reference: str, grade: float) -> None:
    assert GRADES[rule](answer, reference) == grade


def test_a_number_too_large_to_hold_is_none_and_takes_no_time() -> None:
    started_s = time.perf_counter()
    assert last_number("1e999999999") is None
    assert chosen_letter("x" * 200_000) is None
    assert last_number("1," * 50_000) == 1.0
    assert time.perf_counter() - started_s < 2.0


@pytest.mark.parametrize("rule", sorted(GRADES))
@pytest.mark.parametrize("answer", ["", " ", "\n\n", "\\boxed{", "((((", "**", "-", "/"])
def test_no_answer_breaks_a_rule(rule: str, answer: str) -> None:
    assert GRADES[rule](answer, "7") == 0.0
