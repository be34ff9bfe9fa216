"""This module lays out a table for a comparison: one split and one embedder, for every method the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from turnout.core.artifact import load, save
from turnout.core.contracts import Embedder
from turnout.core.errors import InputError, LeakageError, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.evaluation import check_split, dense_part
from turnout.features import TextEmbedder
from turnout.training.study import train_and_test


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A cut table and its embedder."""

    train: OutcomeTable
    test: OutcomeTable
    embedder: Embedder
    """Fitted on the training texts."""


def prepare(name: str, table: OutcomeTable, folder: Path, *, seed: int) -> Path:
    """Cut the dense part of a table, fit the embedder, and write both below `folder`; return the place.

    A split of the table's own is kept unless it leaks or is half named. What stands there from before is
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
    train, test = _parts(dense_part(table), seed)
    place.mkdir(parents=True, exist_ok=True)
    train.save(place / "train")
    test.save(place / "test")
    save(TextEmbedder().fit(train.queries), place / "embedder")
    (place / "about.json").write_text(json.dumps(here) + "\n", encoding="utf-8")
    return place


def read_prepared(place: Path) -> Prepared:
    """Read what `prepare` wrote."""
    embedder = load(place / "embedder")
    assert isinstance(embedder, Embedder)
    return Prepared(
        train=OutcomeTable.load(place / "train"), test=OutcomeTable.load(place / "test"), embedder=embedder
    )


def _parts(table: OutcomeTable, seed: int) -> tuple[OutcomeTable, OutcomeTable]:
    try:
        train, test = train_and_test(table, seed=seed)
        check_split(train, test)
    except (LeakageError, InputError):
        return train_and_test(table, resplit=True, seed=seed)
    return train, test
