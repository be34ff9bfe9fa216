"""This module holds the table that every analysis returns: readable as text, storable as JSON."""

from __future__ import annotations

from dataclasses import dataclass

Cell = str | int | float


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table; `note` says how to read it, unknown numbers are NaN."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def column(self, name: str) -> list[Cell]:
        """Return the cells of one column; raises `ValueError` for a name that is not there."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def to_text(self) -> str:
        """Return the table in aligned columns."""
        lines = [self.columns, *(tuple(show(cell) for cell in row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        body = ["  ".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([self.title, *body, *([self.note] if self.note else [])])

    def to_dict(self) -> dict[str, object]:
        """Return the table for JSON: title, note, and one mapping per row."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "note": self.note, "rows": rows}


def show(cell: Cell) -> str:
    """Return a cell as text: counts with separators, other numbers with three digits that count."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return f"{cell:,}"
    if cell != cell:
        return "-"
    if cell.is_integer() and 1000 <= abs(cell) < 2**53:
        return f"{cell:,.0f}"
    return f"{cell:.3f}" if 0.001 <= abs(cell) < 1000 or cell == 0 else f"{cell:.3g}"
