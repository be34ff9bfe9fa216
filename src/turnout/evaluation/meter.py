"""This module reads how much energy a machine used, from the counters that Linux shows.

Source: the kernel's power capping framework (RAPL): `energy_uj` counts microjoules and starts again at 0
beyond `max_energy_range_uj`. Only top-level zones are added, since a zone counts its subzones.
Trap: a counter sees the whole package; what runs beside the call is counted with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self, final

from turnout.core.errors import InputError, sentence

ROOT = Path("/sys/class/powercap")


@final
class EnergyMeter:
    """Counts joules between its beginning and its end.

        with EnergyMeter() as meter:
            answer = model(prompt)
        table = table.with_extras({"energy_j": [meter.energy_j]})

    A counter that started again is read right if it did so once: read at least every minute or so, by
    entering and leaving.

    Raises `InputError` where the machine shows no counter, or the process may not read it.
    """

    def __init__(self, root: Path = ROOT) -> None:
        # A subzone is `intel-rapl:0:1`; its zone `intel-rapl:0` counts it, too.
        zones = sorted(path for path in root.glob("*:*") if path.name.count(":") == 1)
        self._zones = [zone for zone in zones if (zone / "energy_uj").is_file()]
        if not self._zones:
            raise InputError(
                sentence(
                    f"EnergyMeter: no energy counter below {str(root)!r}",
                    do="run on a machine with RAPL, or record joules by another meter",
                )
            )
        self.energy_j = 0.0
        """Joules between entering and leaving, over all zones."""
        self._start: list[int] = []

    def __enter__(self) -> Self:
        self._start = [_read(zone / "energy_uj") for zone in self._zones]
        return self

    def __exit__(self, *_: object) -> None:
        total_uj = 0
        for zone, before in zip(self._zones, self._start, strict=True):
            moved = _read(zone / "energy_uj") - before
            total_uj += moved if moved >= 0 else moved + _read(zone / "max_energy_range_uj")
        self.energy_j = total_uj / 1e6


def _read(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise InputError(
            sentence(
                f"EnergyMeter: {str(path)!r} cannot be read",
                got=f"{type(error).__name__}: {error}",
                do="let the process read the energy counters",
            )
        ) from error
