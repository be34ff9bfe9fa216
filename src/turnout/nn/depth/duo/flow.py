"""This module holds what all wrapped layers of one model obey at a moment, and what they report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.nn.caches import Stamp, digest
from turnout.nn.depth.duo.choices import BIG


@dataclass
class Record:
    """What the layers did while it was open; one entry a layer and forward pass."""

    choices: dict[int, list[Tensor]] = field(default_factory=dict)
    chances: dict[int, list[Tensor]] = field(default_factory=dict)
    margins: dict[int, list[Tensor]] = field(default_factory=dict)

    @property
    def choice_BTL(self) -> Tensor:
        """The hard choices, (B, T, L); several passes with a cache follow each other along T."""
        return _stacked(self.choices)

    @property
    def chance_BTLA(self) -> Tensor:
        """The probabilities of a soft pass, (B, T, L, A), with their gradient."""
        return _stacked(self.chances)

    @property
    def margin_BTL(self) -> Tensor:
        """By how much the logit of big exceeds the next one, (B, T, L), where routers were asked."""
        return _stacked(self.margins)


@dataclass
class Flow:
    """What the layers obey: the first of these that is set; all-big if none is."""

    choice: Tensor | None = None
    """Forced: (B or 1, T or 1, L)."""
    beams: int = 1
    """Rows of the model for each row of `choice`, as `generate(num_beams=...)` lays them out."""
    generator: torch.Generator | None = None
    """Uniform choices, drawn anew for every token and layer."""
    temperature: float | None = None
    """Soft mixtures of all modules by the routers."""
    is_routed: bool = False
    """Hard choices by the routers."""
    is_slow: bool = False
    """Run the slow twin of the executor."""
    start: int = 0
    """Columns that lie in the cache before this forward pass."""
    record: Record | None = None

    def stamp(self, weights: Iterable[Tensor]) -> Stamp | None:
        """Return what a cache is filled under now, with the routers' `weights`; None is all-big."""
        if self.choice is not None:
            if bool((self.choice == BIG).all()):
                return None
            rows = tuple(row_TL.numpy().tobytes() for row_TL in self.choice.cpu())
            return Stamp(who="forced", items=rows, copies=self.beams)
        if self.generator is not None:
            return Stamp(who=("random", id(self.generator)))
        if self.temperature is None and not self.is_routed:
            return None
        moved = digest(weights)
        if self.temperature is not None:
            return Stamp(who=("soft", self.temperature, moved))
        return Stamp(who=("routed", moved))

    def forced_BT(self, layer: int, num_rows: int, num_columns: int) -> Tensor:
        """Return the forced choice of a layer for this pass, (B, T)."""
        assert self.choice is not None
        choice_BT = self.choice[..., layer]
        if choice_BT.shape[1] > 1 or self.choice.shape[0] > 1:
            self._check(choice_BT, num_rows, num_columns)
        if choice_BT.shape[0] > 1:
            choice_BT = choice_BT.repeat_interleave(self.beams, dim=0)
        if choice_BT.shape[1] > 1:
            choice_BT = choice_BT[:, self.start : self.start + num_columns]
        return choice_BT.expand(num_rows, num_columns)

    def _check(self, choice_BT: Tensor, num_rows: int, num_columns: int) -> None:
        rows, columns = choice_BT.shape
        if rows > 1 and rows * self.beams != num_rows:
            allowed = f"{num_rows} rows" + (f" of {self.beams} beams each" if self.beams > 1 else "")
            raise ShapeError(
                sentence("duo: the batch's rows disagree with the choice", allowed=allowed, got=rows)
            )
        if columns > 1 and self.start + num_columns > columns:
            raise InputError(
                sentence(
                    "duo: the choice ends before the text",
                    allowed=f"at least {self.start + num_columns} columns",
                    got=columns,
                    do="choose per sequence, or for every column that generate may reach",
                )
            )


def _stacked(entries: dict[int, list[Tensor]]) -> Tensor:
    if not entries:
        raise InputError(sentence("duo: nothing was recorded", do="run the model while the record is open"))
    return torch.stack([torch.cat(entries[layer], dim=1) for layer in sorted(entries)], dim=2)
