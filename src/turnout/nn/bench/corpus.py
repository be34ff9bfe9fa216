"""This module holds the text that gates are compared on: bytes of files, or made up where there are none."""

from __future__ import annotations

import hashlib
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.core.rng import make_rng

VALID_SHARE = 0.1
"""The end of each file is kept for validation."""

MADE_BYTES = 600_000
"""Length of the text that is made up."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Bytes to train on and bytes to judge by, as int64; `fingerprint` names the content."""

    name: str
    train_N: Tensor
    valid_N: Tensor
    fingerprint: str


def load_corpus(folder: Path | None = None) -> Corpus:
    """Return the text of all .txt files of a folder, or a made-up text without one.

    Raises `InputError` for a folder without text.
    """
    if folder is None:
        return _corpus("made up", [made_text(MADE_BYTES).encode()])
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    texts = [file.read_bytes() for file in files]
    if sum(map(len, texts)) < 10_000:
        raise InputError(
            sentence("text to train on", allowed="a folder with 10,000 bytes in .txt files", got=str(folder))
        )
    return _corpus(", ".join(file.stem for file in files), texts)


def _corpus(name: str, texts: list[bytes]) -> Corpus:
    parts: list[list[bytes]] = [[], []]
    for text in texts:
        cut = int(len(text) * (1 - VALID_SHARE))
        parts[0].append(text[:cut])
        parts[1].append(text[cut:])
    train_N, valid_N = (_tensor(b"\n".join(part)) for part in parts)
    digest = hashlib.sha256(b"\0".join(texts)).hexdigest()[:12]
    return Corpus(name=name, train_N=train_N, valid_N=valid_N, fingerprint=digest)


def _tensor(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).astype(np.int64))


NAMES = "Ada Ben Cleo Dan Eve Finn Gus Hal Ida Jon Kim Leo Mia Ned Ola Pam".split()
THINGS = "apple bolt cup drum egg flag gate hat ink jar key lamp map nail oar pen".split()
PLACES = "attic barn cellar dock entry field garden hall".split()
CALLS = "count fold join keep merge pick sort split".split()


def made_text(length: int, *, seed: int = 0) -> str:
    """Return text of four kinds in turn: stories with a memory, sums, lists that are sorted, and small code.

    The kinds differ in their bytes and in what has to be known to foretell them, so that experts have
    something to divide among them. The same seed gives the same text.
    """
    rng = make_rng(seed, "made text")
    kinds = (_story, _sums, _lists, _code)
    parts: list[str] = []
    size = 0
    while size < length:
        part = kinds[int(rng.integers(len(kinds)))](rng)
        parts.append(part)
        size += len(part)
    return "".join(parts)[:length]


def _pick(rng: np.random.Generator, words: list[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _story(rng: np.random.Generator) -> str:
    name, thing, first, then = _pick(rng, NAMES), _pick(rng, THINGS), _pick(rng, PLACES), _pick(rng, PLACES)
    other = _pick(rng, NAMES)
    return (
        f"{name} found the {thing} in the {first}. {other} saw it and said nothing. "
        f"{name} carried the {thing} to the {then}. Where is the {thing}? In the {then}, said {other}.\n\n"
    )


def _sums(rng: np.random.Generator) -> str:
    rows = [rng.integers(0, 50, size=2) for _ in range(6)]
    return "".join(f"{a:02d} + {b:02d} = {a + b:03d}\n" for a, b in rows) + "\n"


def _lists(rng: np.random.Generator) -> str:
    words = [_pick(rng, THINGS) for _ in range(6)]
    return f"given:  {' '.join(words)}\nsorted: {' '.join(sorted(words))}\n\n"


def _code(rng: np.random.Generator) -> str:
    call, one, other = _pick(rng, CALLS), _pick(rng, THINGS), _pick(rng, THINGS)
    limit = int(rng.integers(2, 10))
    body = f"""
    def {call}_{one}({one}, {other}):
        if {one} < {limit}:
            return {call}_{other}({other}, {one})
        return [{one} for _ in range({limit})]

    """
    return textwrap.dedent(body)
