"""This module remembers how texts are read: the codes of what stands between two spaces, found once.

No token reaches over a space (`features.tokens`), so that a text is read piece by piece, and most pieces of
most texts have been met before. A code is the row of a word, or a number below `NO_WORD` for a word that has
no row, whose vector is kept beside it.
"""

from __future__ import annotations

import threading
from array import array
from typing import Protocol, final

import numpy as np

from turnout.features.sparse import Array
from turnout.features.tokens import split
from turnout.features.vocabulary import Ints

NO_WORD = -1
"""The code of what is no word: the end of a text."""
END = array("i", [NO_WORD]).tobytes()

MOST_WORDS = 1 << 13
"""Words without a row whose vectors are kept; beyond them, one begins anew."""
MOST_PIECES = 1 << 15
_MOST_LETTERS = 1 << 20
_FIRST_ROOM = 64
_LETTERS = 64
"""A longer piece, as texts without spaces are, is read anew each time."""


class Lexicon(Protocol):
    """Who knows words."""

    def rank_of(self, word: str) -> int | None:
        """Return a word's row; None for one that has none."""
        ...

    def vector_of(self, word: str) -> Array:
        """Return what a word without a row adds to a text."""
        ...


def rows_of(codes: Ints) -> Ints:
    """Return where the vectors of words without a row stand, by their codes."""
    rows: Ints = NO_WORD - 1 - codes
    return rows


@final
class Memory(dict[str, bytes]):
    """Piece of a text in lower case -> codes of its tokens, 32 bits each.

    Several threads may read at once. Who reads holds on to one memory to the end: the codes of another one
    mean other words.

    Parameters
    ----------
    lexicon:
        Who knows the words.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        super().__init__()
        self._lexicon = lexicon
        self._codes: dict[str, int] = {}
        self._num_letters = 0
        self._lock = threading.Lock()
        self.vectors: Array = np.empty((0, 0), np.float32)
        """Of words without a row; that of a code stands where `rows_of` says."""

    def __reduce__(self) -> tuple[type[Memory], tuple[Lexicon]]:
        """Forget everything in a copy."""
        return Memory, (self._lexicon,)

    @property
    def is_full(self) -> bool:
        """Whether it is time for another memory."""
        is_full = len(self._codes) > MOST_WORDS or len(self) > MOST_PIECES
        return is_full or self._num_letters > _MOST_LETTERS

    def read(self, text: str) -> bytes:
        """Return the codes of a text's tokens, in order."""
        lowered = text.lower()
        # Signs of ASCII at which Python cuts a text, and the tokens do not.
        if "\x1c" in lowered or "\x1d" in lowered or "\x1e" in lowered or "\x1f" in lowered:
            return self._read(lowered)
        return b"".join(map(self.__getitem__, lowered.split()))

    def __missing__(self, piece: str) -> bytes:
        codes = self._read(piece)
        if len(piece) <= _LETTERS:
            self[piece] = codes
        return codes

    def _read(self, lowered: str) -> bytes:
        return array("i", [self._code(token) for token in split(lowered)]).tobytes()

    def _code(self, token: str) -> int:
        rank = self._lexicon.rank_of(token)
        if rank is not None:
            return rank
        code = self._codes.get(token)
        return self._add(token) if code is None else code

    def _add(self, token: str) -> int:
        vector = self._lexicon.vector_of(token)
        with self._lock:
            row = len(self._codes)
            if row == len(self.vectors):
                room = np.empty((max(_FIRST_ROOM, row), vector.size), np.float32)
                self.vectors = np.concatenate([self.vectors.reshape(row, vector.size), room])
            self.vectors[row] = vector
            self._num_letters += len(token)
            return self._codes.setdefault(token, NO_WORD - 1 - row)
