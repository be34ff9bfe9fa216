"""The numbers in the docs are those of the result files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from scripts import results

# These read no outcome table but what the commit holds: they time, or make what they measure from the seed.
WITHOUT_TABLE = (
    "adapters",
    "curve",
    "depth_chains",
    "depth_drllm",
    "depth_mixed",
    "duo",
    "gradients",
    "import",
    "openai_suite",
    "other_clients",
    "pains",
    "rewiring",
    "rewiring_tasks",
    "router_r1",
    "token_gates",
)


def test_the_pages_with_numbers_are_up_to_date() -> None:
    assert results.PAGE.read_text(encoding="utf-8") == results.page(), "run `make docs`"
    assert results.ROUTERS.read_text(encoding="utf-8") == results.routers(), "run `make docs`"
    assert results.TRAINING.read_text(encoding="utf-8") == results.training(), "run `make docs`"
    assert results.GATES.read_text(encoding="utf-8") == results.gates(), "run `make docs`"
    assert results.README.read_text(encoding="utf-8") == results.front(), "run `make docs`"


@pytest.mark.parametrize("path", sorted(results.RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_result_says_how_to_get_it_again(path: Path) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    assert re.fullmatch(r"[0-9a-f]{12}", data["commit"]), "measured on a checkout with changes"
    assert data["command"].startswith("python -m benchmarks.")
    assert "fingerprint" in path.read_text(encoding="utf-8") or path.stem in WITHOUT_TABLE
