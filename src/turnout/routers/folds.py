"""This module cuts a table into folds for predictions that never saw what they predict."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

from turnout.core.outcomes import Ints
from turnout.core.query import Query

_NO_WORD = re.compile(r"\W+")


def fold_of(queries: Sequence[Query], num_folds: int, *, seed: int = 0) -> Ints:
    """Return the fold of each query, shape (Q,): texts that differ in case or signs alone share one.

    It depends on the set of texts and never on their order: distinct texts are dealt out by their checksum.
    """
    keys = [_NO_WORD.sub(" ", query.content or "").casefold().strip() for query in queries]
    salt = seed.to_bytes(8, "little")
    rank = sorted(set(keys), key=lambda key: (zlib.crc32(salt + key.encode("utf-8", "surrogatepass")), key))
    place = {key: position % num_folds for position, key in enumerate(rank)}
    return np.array([place[key] for key in keys], np.int64)
