"""A task with a reply: say the digit that you are shown after you asked for it."""

from __future__ import annotations

from turnout.nn.rl.words import word_tokenizer

WORDS = ("<ask>", "</ask>", "<say>", "</say>", "<seen>", "</seen>", "one", "two", "red", "blue")


def tokenizer():
    return word_tokenizer(WORDS)


class Guess:
    """Over after `</say>`; every other turn is told `word`."""

    def __init__(self, prompt: str, word: str = "one") -> None:
        self.prompt = prompt
        self.word = word
        self.turns: list[str] = []

    def reply(self, text: str) -> str | None:
        self.turns.append(text)
        return None if "<say>" in text else f"<seen> {self.word} </seen>"

    @property
    def score(self) -> float:
        """1 where it asked first and then said what it saw."""
        asked = len(self.turns) == 2 and self.turns[0].startswith("<ask>")
        return float(asked and self.turns[1] == f"<say> {self.word} </say>")
