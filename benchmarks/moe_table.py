"""This module writes the table of executors' times into benchmarks/nn/NOTES.md, between two marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NOTES = Path(__file__).resolve().parent / "nn" / "NOTES.md"
BEGIN, END = "<!-- bench_moe: begin -->", "<!-- bench_moe: end -->"

ORDER = ("experts", "k", "tokens", "dtype", "skewed", "backward")
"""By what rows are sorted, and what tells one setting from another."""

MOST = 1.15
"""How many times the floor is asked at most where tokens are many."""
MANY_TOKENS = 4096

COLUMNS = (
    "experts, k",
    "tokens",
    "precision",
    "choices",
    "pass",
    "over the best backend",
    "the best",
    "over the floor",
    "over the fast floor",
    "its products alone, over the floor",
    "over its products alone",
    "not reached",
)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table, with a last column for what is asked and not reached."""
    lines = []
    for row in rows:
        best, floor = row["over_best_backend"], row["over_floor"]
        lines.append(
            f"| {row['experts']}, {row['k']} | {row['tokens']:,} | {row['dtype']} "
            f"| {'skewed' if row['skewed'] else 'even'} "
            f"| {'forward, backward' if row['backward'] else 'forward'} "
            f"| {best['value']:.2f} ({best['low']:.2f} to {best['high']:.2f}) | {row['best_backend']} "
            f"| {floor['value']:.2f} | {row['over_fast_floor']['value']:.2f} "
            f"| {row['products_over_floor']['value']:.2f} | {row['over_products']['value']:.2f} "
            f"| {_missed(row)} |"
        )
    head = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    return "\n".join([*head, *lines, ""])


def written(text: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the notes with the table and a sentence of counts between the marks."""
    slow = sum("slower" in _missed(row) for row in rows)
    many = [row for row in rows if row["tokens"] == MANY_TOKENS]
    above = sum("above" in _missed(row) for row in many)
    fast = sum(row["over_fast_floor"]["value"] > MOST for row in many)
    bare = sum("above" in _missed(row) and row["products_over_floor"]["value"] > MOST for row in many)
    commits = sorted({f"`{row['commit']}`" for row in rows})
    told = (
        f"{len(rows)} settings, measured at {', '.join(commits)}. Slower than the\n"
        f"best backend beyond the interval: {slow}. Above {MOST} of the floor at {MANY_TOKENS:,} tokens: "
        f"{above} of {len(many)},\nand in {bare} of these the products alone are. Over the fast floor, "
        f"products in the fastest form\nthat turnout knows: {fast} of {len(many)}."
    )
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{told}\n\n{table(rows)}{END}{after}"


def write(rows: Sequence[Mapping[str, Any]]) -> None:
    """Write that into the notes."""
    NOTES.write_text(written(NOTES.read_text(encoding="utf-8"), rows), encoding="utf-8")


def _missed(row: Mapping[str, Any]) -> str:
    """Return what a row does not reach."""
    missed = ["slower"] if row["over_best_backend"]["low"] > 1 else []
    if row["tokens"] == MANY_TOKENS and row["over_floor"]["value"] > MOST:
        missed.append(f"above {MOST}")
    return ", ".join(missed)
