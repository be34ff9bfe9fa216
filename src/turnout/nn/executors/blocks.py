"""This module cuts the sorted pairs of a plan into blocks of rows that are gathered together.

A block is some of the pairs, a stretch what one expert has of a block: the rows of one product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

BLOCK_ROWS = 2048
"""Rows of a block, and of a product, about: enough for its full speed, few enough to stay near."""

EVEN_ROWS = 256
"""From so many rows on a product goes over a multiple of `EVEN`, where its precision asks for that."""

EVEN = 4
"""oneDNN cuts rows into equal parts; of 481 = 13 * 37 they are parts that its kernels are slow for."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows `start` to `end` of a plan's pairs, all of one expert, and where they stand among its own.

    Products go on to `reach`: rows of other experts, whose results are written over afterwards.
    """

    expert: int
    start: int
    end: int
    reach: int
    is_first: bool = True
    is_last: bool = True

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
    def num_rows(self) -> int:
        """How many rows it has."""
        return self.stretches[-1].end - self.start

    @property
    def num_reached(self) -> int:
        """How many rows its products go over, counted from its first."""
        return self.stretches[-1].reach - self.start

    def within(self, stretch: Stretch) -> slice:
        """Return the rows of a stretch, counted from the block's first."""
        return slice(stretch.start - self.start, stretch.end - self.start)

    def reached(self, stretch: Stretch) -> slice:
        """Return the rows that a stretch's products go over, counted from the block's first."""
        return slice(stretch.start - self.start, stretch.reach - self.start)


def stretches_of(offsets_E: Tensor, *, is_even: bool) -> Iterator[Stretch]:
    """Yield the experts' pairs; waits for an accelerator once, to learn the offsets.

    Rows are cut evenly: a few left over would be a product that takes as long as one of many.
    """
    ends = offsets_E.tolist()
    for expert, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        pieces = _even(start, end, BLOCK_ROWS)
        for number, (first, last) in enumerate(pieces):
            more = (first - last) % EVEN if is_even and last - first >= EVEN_ROWS else 0
            reach = min(last + more, ends[-1])
            yield Stretch(expert, first, last, reach, number == 0, number == len(pieces) - 1)


def blocks_of(offsets_E: Tensor, *, is_even: bool = False) -> list[Block]:
    """Return all stretches, as many to a block as its rows allow; `is_even`: see `EVEN_ROWS`."""
    blocks: list[Block] = []
    found: list[Stretch] = []
    for stretch in stretches_of(offsets_E, is_even=is_even):
        if found and stretch.end - found[0].start > BLOCK_ROWS:
            blocks.append(Block(tuple(found)))
            found = []
        found.append(stretch)
    return [*blocks, Block(tuple(found))] if found else blocks


def segments_of(offsets_E: Tensor) -> list[Stretch]:
    """Return the experts' rows whole, those without rows left out."""
    ends = offsets_E.tolist()
    pairs = zip([0, *ends[:-1]], ends, strict=True)
    return [Stretch(expert, start, end, end) for expert, (start, end) in enumerate(pairs) if end > start]


def pieces_of(num_rows: int, rows: int) -> list[slice]:
    """Return slices of about so many rows each, in order, that hold all."""
    return [slice(start, end) for start, end in _even(0, num_rows, rows)]


def _even(start: int, end: int, rows: int) -> list[tuple[int, int]]:
    """Cut a stretch into parts of about so many rows, none more than half as many again."""
    count = end - start
    parts = max(round(count / rows), 1) if count else 0
    return [(start + count * i // parts, start + count * (i + 1) // parts) for i in range(parts)]
