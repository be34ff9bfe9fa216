"""What a user says next about an answer."""

from __future__ import annotations

import pytest

from turnout.features.feedback import LABELS, read_feedback

BEFORE = "How many moons does Jupiter have?"


@pytest.mark.parametrize(
    ("message", "label"),
    [
        ("That's wrong, it has more.", "wrong"),
        ("No, I meant Saturn.", "wrong"),
        ("you misunderstood me", "wrong"),
        ("it still does not work", "wrong"),
        ("Try again please", "again"),
        ("how many moons does jupiter have??", "again"),
        ("Thanks, perfect!", "thanks"),
        ("Can you elaborate?", "more"),
        ("And what about Saturn?", "none"),
        ("", "none"),
    ],
)
def test_the_label(message: str, label: str) -> None:
    assert label in LABELS
    assert read_feedback(message, BEFORE) == label


def test_a_first_message_speaks_of_no_answer() -> None:
    assert read_feedback("That's wrong.", None) == "none"
