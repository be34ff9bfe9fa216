"""This module holds the sizes of the comparison: what is trained, how long, how often."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count
from turnout.nn.bench.contenders import CONTENDERS, CONTROLS, ENTRIES, SIX, find_contender
from turnout.nn.bench.model import Size

MAX_SEEDS = 10
"""For more there is no quantile of Student's t in `summary`."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What every cell has in common; two runs with equal settings can be joined."""

    name: str
    size: Size
    batch: int
    """Items of a training step."""
    steps: int
    rate: float
    """The highest learning rate; it warms up over a twentieth of the steps and falls by a cosine."""
    seeds: int
    contenders: tuple[str, ...]
    judged: int
    """Items of validation text, as many positions as in training."""
    is_half: bool = False
    """Whether products are of bfloat16, under autocast."""

    def __post_init__(self) -> None:
        for name in ("batch", "steps", "judged"):
            check_count(f"setting: {name}", getattr(self, name))
        check_count("setting: seeds", self.seeds, low=2, high=MAX_SEEDS)
        if self.steps < 10:
            raise InputError(sentence("setting: steps", allowed="10 at least", got=self.steps))
        for name in self.contenders:
            find_contender(name)

    @property
    def key(self) -> str:
        """What names everything that a cell depends on but its gate and its seed."""
        body = {k: v for k, v in asdict(self).items() if k not in ("name", "seeds", "contenders")}
        if not self.is_half:
            # Cells of before it was asked are the same cells.
            del body["is_half"]
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]

    def cells(self) -> list[tuple[str, int]]:
        """Return (gate, seed) in an order in which an early end is fair to all."""
        return [(name, seed) for seed in range(self.seeds) for name in self.contenders]


_SMALL = Setting(
    name="small",
    size=Size(width=64, heads=4, layers=2, inner=128, experts=8, positions=128),
    batch=8,
    steps=800,
    rate=4e-3,
    seeds=3,
    contenders=(*CONTROLS, *SIX),
    judged=48,
)

SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        _SMALL,
        replace(_SMALL, name="all", contenders=tuple(CONTENDERS)),
        Setting(
            name="full",
            size=Size(width=128, heads=4, layers=4, inner=256, experts=16, positions=256),
            batch=16,
            steps=2000,
            rate=2e-3,
            seeds=5,
            contenders=tuple(CONTENDERS),
            judged=96,
        ),
        Setting(
            name="gpu",
            size=Size(width=512, heads=8, layers=8, inner=1024, experts=64, positions=512),
            batch=64,
            steps=5000,
            rate=1e-3,
            seeds=5,
            contenders=tuple(entry.name for entry in ENTRIES),
            judged=256,
            is_half=True,
        ),
    )
}
"""`small`: minutes on two cores. `all`: all gates at that size, half an hour. `full`: all gates at a larger
one, more than a day. `gpu`: all gates, hours on an accelerator."""
