"""This module cuts the sorted pairs of a plan into blocks of rows that are gathered and added up together.

A block is a stretch of pairs, a chunk the part of a block that one expert has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

BLOCK_ROWS = 512
"""Rows of a block at most: enough for a product's full speed, few enough for its result to stay near."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows `start` to `end` of a plan's pairs, all of one expert, and where they stand in their expert's."""

    expert: int
    start: int
    end: int
    is_first: bool
    is_last: bool

    @property
    def num_rows(self) -> int:
        """How many rows it has."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Block:
    """Chunks that follow each other."""

    chunks: tuple[Chunk, ...]

    @property
    def rows(self) -> slice:
        """Its pairs."""
        return slice(self.chunks[0].start, self.chunks[-1].end)

    @property
    def sizes(self) -> list[int]:
        """Rows of each chunk."""
        return [chunk.num_rows for chunk in self.chunks]


def chunks_of(offsets_E: Tensor, rows: int = BLOCK_ROWS) -> Iterator[Chunk]:
    """Yield an expert's pairs in chunks; waits for an accelerator once, to learn the offsets."""
    start = 0
    for expert, end in enumerate(offsets_E.tolist()):
        for at in range(start, end, rows):
            yield Chunk(expert, at, min(at + rows, end), at == start, at + rows >= end)
        start = end


def blocks_of(offsets_E: Tensor, rows: int = BLOCK_ROWS) -> list[Block]:
    """Return all chunks, as many to a block as its rows allow."""
    blocks: list[Block] = []
    open_chunks: list[Chunk] = []
    for chunk in chunks_of(offsets_E, rows):
        if open_chunks and chunk.end - open_chunks[0].start > rows:
            blocks.append(Block(tuple(open_chunks)))
            open_chunks = []
        open_chunks.append(chunk)
    return [*blocks, Block(tuple(open_chunks))] if open_chunks else blocks
