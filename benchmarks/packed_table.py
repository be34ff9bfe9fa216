"""Write what came of the predictions for packed weights into benchmarks/nn/NOTES.md.

    python -m benchmarks.packed_table

Reads `packed.json`; `bench_packed` calls it too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.moe_table import MOST, NOTES
from benchmarks.record import RESULTS

BEGIN, END = "<!-- bench_packed: begin -->", "<!-- bench_packed: end -->"

FEW = 256
"""Up to so many tokens packed weights are for."""

Row = Mapping[str, Any]
Rows = Sequence[Row]

HALF, SINGLE = "bfloat16", "float32"


def told(rows: Rows) -> str:
    """Return the table of predictions and what came out, even and skewed choices together."""
    head = (
        "| seventh prediction, forward, `packed` over `auto` (`packed.json`, on a machine that others used) "
    )
    lines = [f"{head}| came out |", "|---|---|"]
    lines += [f"| {predicted} | {came_out(rows)} |" for predicted, came_out in PREDICTED]
    few = [1 - row["packed_over_auto"]["value"] for row in rows if row["tokens"] <= FEW]
    return "\n".join([*lines, "", *_so(rows, few), ""])


def _so(rows: Rows, few: Sequence[float]) -> list[str]:
    many = _where(rows, dtype=HALF, tokens=4096)
    return [
        f"So packed weights are for few tokens: a layer that answers takes {100 * min(few):.0f} to "
        f"{100 * max(few):.0f} % less time up to {FEW} tokens.",
        f"At 4,096 tokens in half precision {sum(_over(row) > MOST for row in many)} of {len(many)} settings "
        f"stay above {MOST} of the floor with weights packed too",
        f"({sum(row['auto_over_floor']['value'] > MOST for row in many)} with `auto`). What changes its "
        "weights, in training, would pack them anew each step and gains nothing.",
    ]


def _over(row: Row) -> float:
    return float(row["packed_over_floor"]["value"])


def _rows_of(row: Row) -> int:
    """Return the rows that an expert has on average."""
    return int(row["tokens"] * row["k"] // row["experts"])


def _where(rows: Rows, **same: object) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in same.items())]


def _range(values: Sequence[float], form: str = ".2f") -> str:
    low, high = (format(end, form) for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _of(rows: Rows, key: str = "packed_over_auto") -> str:
    return _range([row[key]["value"] for row in rows])


def _one_token(rows: Rows) -> str:
    return "; ".join(f"{_of(_where(rows, dtype=HALF, tokens=1, k=k))} with k {k}" for k in (2, 8))


def _some_tokens(rows: Rows) -> str:
    found = _where(rows, dtype=HALF, tokens=256)
    few, many = ([row for row in found if (_rows_of(row) < 128) is is_few] for is_few in (True, False))
    return f"{_of(few)}; {_of(many)}"


def _many_tokens(is_short: bool) -> Callable[[Rows], str]:
    def said(rows: Rows) -> str:
        found = [row for row in _where(rows, dtype=HALF, tokens=4096) if (_rows_of(row) < 512) is is_short]
        if not is_short:
            found = [row for row in found if _rows_of(row) == 512]
        floor, auto = _of(found, "packed_over_floor"), _of(found, "auto_over_floor")
        return f"{_of(found)}: {floor} of the floor, where `auto` has {auto}"

    return said


def _few_single(rows: Rows) -> str:
    return "; ".join(_of(_where(rows, dtype=SINGLE, tokens=tokens)) for tokens in (1, 16))


def _packing(rows: Rows) -> str:
    parts = []
    for tokens in (16, 4096):
        passes = [row["packing_in_passes"] for row in _where(rows, tokens=tokens)]
        parts.append(f"{_range(passes, '.1f')} passes of {tokens:,} tokens (median {median(passes):.1f})")
    return "; ".join(parts)


def _bits(rows: Rows) -> str:
    found = _where(rows, dtype=HALF)
    other = [row for row in found if not row["is_same"]]
    at = ", ".join(f"{tokens:,}" for tokens in sorted({row["tokens"] for row in other}))
    why = f"; not at {at} tokens, where `auto` takes the grouped product" if other else ""
    return f"in {len(found) - len(other)} of {len(found)} settings{why}"


PREDICTED: tuple[tuple[str, Callable[[Rows], str]], ...] = (
    ("bf16, 1 token: 0.6 with k 2, 0.55 with k 8", _one_token),
    ("bf16, 16 tokens: 0.65", lambda rows: _of(_where(rows, dtype=HALF, tokens=16))),
    ("bf16, 256 tokens: 0.8 up to 32 rows an expert, 0.92 with 128", _some_tokens),
    ("bf16, 4,096 tokens, 64 experts, k 2: 0.90, 1.20 of the floor", _many_tokens(is_short=True)),
    (
        "bf16, 4,096 tokens, 512 rows an expert: 0.95 to 0.97, 1.12 to 1.15 of the floor",
        _many_tokens(is_short=False),
    ),
    ("fp32, 1 and 16 tokens: 0.6 and 0.7", _few_single),
    ("fp32, 4,096 tokens: 0.9", lambda rows: _of(_where(rows, dtype=SINGLE, tokens=4096))),
    ("packing: 2 passes of 16 tokens", _packing),
    ("results in bf16: the same bits", _bits),
)
"""What was predicted, and what says how it came out."""


def written(text: str, rows: Rows) -> str:
    """Return the notes with what stands between the marks written anew."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{told(rows)}{END}{after}"


def main() -> None:
    rows = json.loads((RESULTS / "packed.json").read_text(encoding="utf-8"))["result"]["rows"]
    NOTES.write_text(written(NOTES.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
