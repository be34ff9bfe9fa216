"""This module writes what docs/bench_gates.md says of the tables of gates: who differs, and in what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from scripts.results_cells import Result, spread
from turnout.nn.bench.summary import BASELINE, TOLERANCE, group_of

TABLES = ("gates", "gates_more", "gates_all")
"""Tables of many gates; a later one of the same gate counts before an earlier one."""

AGAIN = "dirichlet"
"""The gate that stood out of the first comparison, and was trained over more seeds."""


def measured(read: Callable[[str], Result], exists: Callable[[str], bool]) -> Iterator[str]:
    """Yield the lines of all that is there."""
    for name in TABLES:
        if exists(f"{name}.json"):
            yield f"- {_table(name, read(name)['result'])}"
    if exists(f"gates_{AGAIN}.json"):
        yield f"- {_again(read(f'gates_{AGAIN}')['result'], read('gates_more')['result'])}"
    yield ""
    if exists("hours_of_gates.json"):
        yield _hours(read("hours_of_gates")["result"])


def _table(name: str, result: Result) -> str:
    rows = [row for row in result["rows"] if row["gate"] != BASELINE]
    fair = [row for row in rows if row["against_dense"] and row["sees"] in ("token", "past")]
    below = [row for row in fair if row["against_dense"]["high"] < 0]
    above = [row for row in fair if row["against_dense"]["low"] > 0]
    other = [row for row in rows if row["flops"] and _is_other(row)]
    idle = [row for row in rows if row["dead_share"] and row["dead_share"]["value"] > 0]
    uneven = max((row for row in rows if row["max_vio"]), key=lambda row: float(row["max_vio"]["value"]))
    timed = sorted((row for row in rows if row["speed"]), key=lambda row: float(row["speed"]["value"]))
    return (
        f"`{name}.json`, {len(fair)} against the dense model over {result['setting']['seeds']} seeds, by "
        "the interval of each and without a correction for their number. Nats a byte, below by the whole "
        f"interval: {_named(below, 'against_dense', '+.3f')}; above: "
        f"{_named(above, 'against_dense', '+.3f')}. Operations more than {100 * TOLERANCE:.0f} % from the "
        f"dense model's: {_named(other, 'flops', '.2f')}. Training speed over its: "
        f"{_named(timed[:1], 'speed', '.2f')} to {_named(timed[-1:], 'speed', '.2f')}. Most uneven "
        f"(MaxVio): {_named([uneven], 'max_vio', '.2f')}. Share of experts without a token: "
        f"{_named(idle, 'dead_share', '.2f')}."
    )


def _is_other(row: Result) -> bool:
    return group_of("token", row["flops"]["value"]) == "other work"


def _again(result: Result, before: Result) -> str:
    rows = {row["gate"]: row for row in result["rows"]}
    found, usual = rows[AGAIN], rows["top_k"]
    seeds, new = result["setting"]["seeds"], result["setting"]["seeds"] - before["setting"]["seeds"]
    return (
        f"`gates_{AGAIN}.json`: `{AGAIN}` was picked out of `gates_more.json` by its loss, so it was trained "
        f"again, over {seeds} seeds, {new} of them new. Against the dense model: "
        f"{spread(found['against_dense'], form='+.3f')} nats a byte, `top_k` "
        f"{spread(usual['against_dense'], form='+.3f')}, at {found['flops']['value']:.2f} and "
        f"{usual['flops']['value']:.2f} of its operations; `{AGAIN}` trains at "
        f"{found['speed']['value'] / usual['speed']['value']:.2f} of the speed of `top_k`."
    )


def _hours(result: Result) -> str:
    cells = sorted(result["rows"], key=lambda row: float(row["cell_hours"]))
    ends = [f"{row['cell_hours']:.2f} (`{row['gate']}`)" for row in (cells[0], cells[-1])]
    return (
        f"`{result['setting']}` has {result['cells']} cells of {' to '.join(ends)} hours of one core, "
        f"{result['core_hours']:.0f} hours of processor time in all, so {result['hours_on_2_cores']:.0f} on "
        "two cores. That is an estimate (`hours_of_gates.json`, `python -m benchmarks.bench_gates_hours`): "
        f"{result['measured_steps']} of the {result['steps']:,} steps of each gate, after some that are not "
        "timed, and judging once, by processor seconds of one thread on a machine that others used."
    )


def _named(rows: Sequence[Result], key: str, form: str) -> str:
    """Return gates with a number each; `none` of nothing."""
    names = (f"`{row['gate']}` {format(row[key]['value'], form)}" for row in rows)
    return ", ".join(names) or "none"
