"""This module lays out a table for a comparison: one split and one embedder, for every method the same."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from turnout.core.artifact import load, save
from turnout.core.contracts import Embedder
from turnout.core.errors import InputError, LeakageError, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.evaluation import Cells, check_split
from turnout.features import TextEmbedder
from turnout.training.bench.holes import comparable, fill, supported
from turnout.training.study import train_and_test

_CELLS = tuple(field.name for field in fields(Cells))


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A cut table and its embedder."""

    train: OutcomeTable
    test: OutcomeTable
    embedder: Embedder
    """Fitted on the training texts."""
    cells: Cells | None
    """What the cells of `test` count as; None where all were observed."""


def prepare(name: str, table: OutcomeTable, folder: Path, *, seed: int) -> Path:
    """Cut a table, fit the embedder, and write both below `folder`; return the place.

    Of a table with holes the part is taken that can be judged (`holes`). A split of the table's own is kept
    unless it leaks or is half named. What stands there from before is
    kept; raises `InputError` where that is another table or another seed.
    """
    place, here = folder / name, {"fingerprint": table.fingerprint, "seed": seed}
    if (place / "about.json").is_file():
        known = json.loads((place / "about.json").read_text(encoding="utf-8"))
        if known != here:
            raise InputError(
                sentence(
                    f"{str(place)!r} belongs to another table or seed",
                    allowed=here,
                    got=known,
                    do="name another folder",
                )
            )
        return place
    train, test = _parts(comparable(table), seed)
    embedder = TextEmbedder().fit(train.queries)
    train, test = supported(train, test, embedder)
    place.mkdir(parents=True, exist_ok=True)
    train.save(place / "train")
    test.save(place / "test")
    save(embedder, place / "embedder")
    if (cells := fill(train, test, embedder)) is not None:
        np.savez(place / "cells.npz", **{name: getattr(cells, name) for name in _CELLS})
    (place / "about.json").write_text(json.dumps(here) + "\n", encoding="utf-8")
    return place


def read_prepared(place: Path) -> Prepared:
    """Read what `prepare` wrote."""
    embedder = load(place / "embedder")
    assert isinstance(embedder, Embedder)
    return Prepared(
        train=OutcomeTable.load(place / "train"),
        test=OutcomeTable.load(place / "test"),
        embedder=embedder,
        cells=_read_cells(place / "cells.npz"),
    )


def _read_cells(path: Path) -> Cells | None:
    if not path.is_file():
        return None
    with np.load(path) as arrays:
        return Cells(**{name: arrays[name] for name in _CELLS})


def _parts(table: OutcomeTable, seed: int) -> tuple[OutcomeTable, OutcomeTable]:
    try:
        train, test = train_and_test(table, seed=seed)
        check_split(train, test)
    except (LeakageError, InputError):
        return train_and_test(table, resplit=True, seed=seed)
    return train, test
