"""This module makes random generators from seeds: a constructor takes a seed, a method takes a generator."""

from __future__ import annotations

import zlib

import numpy as np


def make_rng(seed: int, *labels: str) -> np.random.Generator:
    """Return a generator for `seed` and a purpose.

    Different `labels` give independent streams, so that adding one random step to a program does not
    change the numbers of another. The labels are hashed with CRC-32, which is the same in every process.
    """
    return np.random.default_rng([seed, *(zlib.crc32(label.encode()) for label in labels)])
