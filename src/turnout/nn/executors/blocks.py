"""This module cuts the sorted pairs of a plan into blocks of rows that are gathered together.

A block is some of the pairs, a stretch what one expert has of a block, a chunk what is multiplied at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

CHUNK_ROWS = 512
"""Rows of a chunk, about: enough for a product's full speed, few enough for its result to stay near."""

BLOCK_ROWS = 2048
"""Rows of a block at most, and of an expert's product that gives the gradient of its weights."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows `start` to `end` of a plan's pairs, all of one expert."""

    expert: int
    start: int
    end: int

    @property
    def num_rows(self) -> int:
        """How many rows it has."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Stretch:
    """Chunks of one expert within a block, and where they stand in their expert's rows."""

    expert: int
    chunks: tuple[Chunk, ...]
    is_first: bool
    is_last: bool

    @property
    def start(self) -> int:
        """Its first row among all pairs."""
        return self.chunks[0].start

    @property
    def end(self) -> int:
        """The row after its last."""
        return self.chunks[-1].end

    @property
    def num_rows(self) -> int:
        """How many rows it has."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Block:
    """Stretches that follow each other."""

    stretches: tuple[Stretch, ...]

    @property
    def start(self) -> int:
        """Its first row among all pairs."""
        return self.stretches[0].start

    @property
    def rows(self) -> slice:
        """Its pairs."""
        return slice(self.start, self.stretches[-1].end)

    def within(self, part: Chunk | Stretch) -> slice:
        """Return the rows of a part, counted from the block's first."""
        return slice(part.start - self.start, part.end - self.start)


def stretches_of(offsets_E: Tensor) -> Iterator[Stretch]:
    """Yield the experts' pairs; waits for an accelerator once, to learn the offsets.

    Rows are cut evenly: a few left over would be a product that takes as long as one of many.
    """
    start = 0
    for expert, end in enumerate(offsets_E.tolist()):
        pieces = _even(start, end, BLOCK_ROWS)
        for number, (first, last) in enumerate(pieces):
            chunks = tuple(Chunk(expert, a, b) for a, b in _even(first, last, CHUNK_ROWS))
            yield Stretch(expert, chunks, is_first=number == 0, is_last=number == len(pieces) - 1)
        start = end


def blocks_of(offsets_E: Tensor) -> list[Block]:
    """Return all stretches, as many to a block as its rows allow."""
    blocks: list[Block] = []
    found: list[Stretch] = []
    for stretch in stretches_of(offsets_E):
        if found and stretch.end - found[0].start > BLOCK_ROWS:
            blocks.append(Block(tuple(found)))
            found = []
        found.append(stretch)
    return [*blocks, Block(tuple(found))] if found else blocks


def segments_of(offsets_E: Tensor) -> list[Chunk]:
    """Return the experts' rows whole, those without rows left out."""
    ends = offsets_E.tolist()
    pairs = zip([0, *ends[:-1]], ends, strict=True)
    return [Chunk(expert, start, end) for expert, (start, end) in enumerate(pairs) if end > start]


def _even(start: int, end: int, rows: int) -> list[tuple[int, int]]:
    """Cut a stretch into parts of about so many rows, none more than half as many again."""
    count = end - start
    parts = max(round(count / rows), 1) if count else 0
    return [(start + count * i // parts, start + count * (i + 1) // parts) for i in range(parts)]
