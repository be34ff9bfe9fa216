"""Every format that was ever written is still read, from artifacts that were committed when it was new.

A new format adds a folder to `fixtures` and changes none: what a reader once wrote must stay readable.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from turnout.core import artifact
from turnout.core.contracts import Embedder
from turnout.core.query import Query
from turnout.core.registry import find_registry

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("folder", sorted(FIXTURES.glob("format_*")), ids=lambda path: path.name)
def test_every_format_that_was_ever_written_is_read(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    manifest = artifact.read_manifest(folder)
    assert manifest["format"] == int(folder.name.removeprefix("format_"))
    loaded = artifact.load(folder)
    assert type(loaded) is find_registry(expected["room"]).get(expected["name"])
    assert isinstance(loaded, Embedder)
    queries = [Query(id=str(row), text=text) for row, text in enumerate(expected["texts"])]
    x_QF = loaded.embed(queries)
    np.testing.assert_allclose(x_QF, np.array(expected["x_QF"]), rtol=0, atol=1e-6)


def test_there_is_a_fixture_of_every_format() -> None:
    found = {path.name for path in FIXTURES.glob("format_*")}
    assert found == {f"format_{version}" for version in range(1, artifact.FORMAT + 1)}
