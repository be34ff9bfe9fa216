"""The table of families says what was tried, and refusals are the minority."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import transformers

from scripts import moe_families

ROWS = re.findall(
    r"^\| (\w+) \| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \| (.+) \|$",
    moe_families.PAGE.read_text(encoding="utf-8"),
    re.M,
)


def test_refusals_are_the_minority_and_each_has_its_obstacle() -> None:
    assert len(ROWS) > 60
    exact = [row for row in ROWS if row[2] == "exact"]
    assert len(exact) > len(ROWS) * 0.9
    assert all(row[3] == "exact" for row in exact), "what replays exactly takes another gate too"
    assert all(len(replayed) > 8 for _, _, replayed, *_ in ROWS if replayed not in ("exact", "-"))
    assert all(len(rule) > 8 for _, _, replayed, _, _, rule in ROWS if replayed == "-")
    executed = [row[4] for row in ROWS]
    assert executed.count("same") > len(ROWS) * 0.85
    assert all(len(cell) > 8 for cell in executed if cell not in ("same", "-"))


@pytest.mark.parametrize("name", ["mixtral", "phimoe", "llama4", "gemma4", "nllb_moe", "vitpose_backbone"])
def test_the_page_says_what_is_found_now(name: str) -> None:
    found = list(moe_families.family(name))
    assert found
    if f"`transformers` {transformers.__version__}," in moe_families.PAGE.read_text(encoding="utf-8"):
        here = [(one.family, one.block, one.replayed, one.swapped, one.executed) for one in found]
        assert here == [row[:5] for row in ROWS if row[0] == name]
    is_known = name not in ("nllb_moe", "vitpose_backbone")
    assert (found[0].rule is not None) == is_known
    assert (found[0].replayed == "exact") == (name != "vitpose_backbone")
