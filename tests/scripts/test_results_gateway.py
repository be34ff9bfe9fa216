"""The page of the gateway says which of its targets were missed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from scripts import results_gateway
from scripts.results_gateway import STREAMS

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture
def recorded() -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / "gateway.json").read_text(encoding="utf-8"))["result"]
    for found_by_key in (result, result["lean_load"]):
        for key in ("clients_1", "clients_64", STREAMS):
            found_by_key[key].pop("relay", None)
    return result


def rows(result: dict[str, Any]) -> dict[str, list[str]]:
    """Return the cells of the targets by their label."""
    lines = [line for line in results_gateway.load(result) if " at most " in line or " at least " in line]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {label: rest for label, *rest in cells}


def set_rates(result: dict[str, Any], key: str, gateway: float, peer: float) -> None:
    for found_by_key in (result, result["lean_load"]):
        found = found_by_key[key]
        found["gateway"]["per_second"] = gateway
        for name in [name for name in found if name.startswith("litellm")]:
            found[name]["per_second"] = peer


def test_a_target_that_was_missed_is_called_missed(recorded: dict[str, Any]) -> None:
    set_rates(recorded, "clients_64", 2_499.0, 62.0)
    set_rates(recorded, STREAMS, 900.0, 12.0)
    found = rows(recorded)
    assert found["requests a second with 64 clients"] == ["at least 2,500", "2,499, missed", "2,499, missed"]
    assert found["times LiteLLM with 64 clients"] == ["at least 40", "40", "40"]
    assert found["streams a second with 16 clients"] == ["at least 900", "900", "900"]
    assert found["times LiteLLM with streams"] == ["at least 80", "75, missed", "75, missed"]
    recorded["clients_1"]["gateway"]["total_p50_ms"] = recorded["clients_1"]["direct"]["total_p50_ms"] + 0.9
    assert rows(recorded)["added p50 with 1 client, ms"][1] == "0.90, missed"
    said = "\n".join(results_gateway.load(recorded))
    assert "times LiteLLM with streams (by aiohttp's client and the lean client)" in said


def test_the_faster_release_counts(recorded: dict[str, Any]) -> None:
    set_rates(recorded, STREAMS, 2_000.0, 20.0)
    name = next(name for name in recorded[STREAMS] if name.startswith("litellm"))
    recorded[STREAMS][name]["per_second"] = 40.0
    assert rows(recorded)["times LiteLLM with streams"] == ["at least 80", "50, missed", "100"]


def test_nothing_missed_is_said_too(recorded: dict[str, Any]) -> None:
    set_rates(recorded, "clients_64", 9_000.0, 100.0)
    set_rates(recorded, STREAMS, 9_000.0, 100.0)
    said = list(results_gateway.load(recorded))
    assert "None is missed." in said
    assert not any("missed" in line for line in said if line.startswith("|"))


def test_a_bare_relay_stands_beside_where_it_was_measured(recorded: dict[str, Any]) -> None:
    without = rows(recorded)
    for found_by_key in (recorded, recorded["lean_load"]):
        for key in ("clients_1", "clients_64", STREAMS):
            found_by_key[key]["relay"] = copy.deepcopy(found_by_key[key]["gateway"])
            found_by_key[key]["relay"]["per_second"] *= 2
    with_relay = rows(recorded)
    for label, (asked, *reached) in without.items():
        assert with_relay[label][0] == asked
        assert with_relay[label][1::2] == reached
    rate = recorded[STREAMS]["relay"]["per_second"]
    assert with_relay["streams a second with 16 clients"][2] == f"{rate:,.0f}"


def test_without_litellm_nothing_is_said_of_times(recorded: dict[str, Any]) -> None:
    recorded["peers"] = {"litellm": "not installed"}
    assert not any(label.startswith("times") for label in rows(recorded))
