"""Write the table of executors on a GPU into benchmarks/nn/NOTES.md, and draw it.

    python -m benchmarks.moe_gpu_table

Reads `moe_gpu.json`, and where it is there `moe_gpu_others.json`, of experts that are not plain SwiGLU. A GPU
may be far from where the pages are written, so that this is no part of the benchmarks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.moe_table import NOTES
from benchmarks.record import RESULTS

MARKS = "<!-- bench_moe_gpu: begin -->", "<!-- bench_moe_gpu: end -->"
MARKS_OF_OTHERS = "<!-- bench_moe_gpu others: begin -->", "<!-- bench_moe_gpu others: end -->"
OURS = "turnout"
RIVALS = ("scattermoe", "megablocks_cutlass", "megablocks", "transformers grouped_mm")
RIVALS_OF_OTHERS = ("transformers grouped_mm", "turnout triton", "turnout grouped without kernels")
COLORS = {
    "turnout": "#2563eb",
    "scattermoe": "#d97706",
    "megablocks_cutlass": "#059669",
    "megablocks": "#a3a3a3",
    "transformers grouped_mm": "#dc2626",
}
SHAPES = {"olmoe": "OLMoE-1B-7B", "qwen3": "Qwen3-30B-A3B"}
OTHERS = {"gpt_oss": "gpt-oss-20b", "olmoe_gelu": "OLMoE-1B-7B with GELU"}


def table(rows: Sequence[Mapping[str, Any]], rivals: Sequence[str] = RIVALS) -> str:
    """Return one line a setting: milliseconds, share of the roofline, and ratios with their intervals."""
    head = [
        "layer",
        "tokens",
        "choices",
        "pass",
        "ms",
        "of the roofline",
        *(f"over {name}" for name in rivals),
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [
            (SHAPES | OTHERS)[row["shape"]],
            f"{row['tokens']:,}",
            "skewed" if _is_skewed(row) else "even",
            "forward, backward" if row["backward"] else "forward",
            f"{row['ms'][OURS]:.2f}",
            f"{row['share_of_roofline'][OURS]:.2f}",
            *(_ratio(row["ours_over"].get(name)) for name in rivals),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def told(body: Mapping[str, Any], rivals: Sequence[str] = RIVALS) -> str:
    """Return what stands between the marks; another way of ours is no other."""
    result = body["result"]
    rows, peak = result["rows"], result["peak"]
    others = [name for name in rivals if not name.startswith(OURS)]
    found = [row["ours_over"][name] for row in rows for name in others if name in row["ours_over"]]
    behind = sum(one["low"] > 1 for one in found)
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result["versions"].items()))
    return (
        f"{result['device']}, {versions}, measured at `{body['commit']}`: a large product runs at "
        f"{peak['tflops']:.0f} TFLOP/s,\na copy at {peak['tb_per_s']:.1f} TB/s. Of {len(found)} ratios to "
        f"others {behind} are above 1 by their whole interval.\n\n{table(rows, rivals)}\n"
    )


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the share of the roofline by the number of tokens, choices even, for each layer and pass."""
    figure = Figure(figsize=(10.0, 7.0), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    many = [row for row in rows if RIVALS[0] in row["ours_over"] and not _is_skewed(row)]
    for down, shape in enumerate(SHAPES):
        for across, backward in enumerate((False, True)):
            axes = panels[down, across]
            here = [row for row in many if row["shape"] == shape and row["backward"] is backward]
            for name, color in COLORS.items():
                points = [
                    (row["tokens"], row["share_of_roofline"][name]) for row in here if name in row["ms"]
                ]
                axes.plot(*zip(*points, strict=True), "o-", color=color, label=name, markersize=4)
            axes.set_title(
                f"{SHAPES[shape]}, {'forward and backward' if backward else 'forward'}", fontsize=10
            )
            axes.set_xscale("log", base=2)
            axes.set_xticks([row["tokens"] for row in here], [f"{row['tokens'] // 1024}k" for row in here])
            axes.set_ylim(0, 1)
            axes.grid(color="#e5e7eb")
            axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[1]:
        axes.set_xlabel("tokens")
    for axes in panels[:, 0]:
        axes.set_ylabel("share of the roofline")
    marks, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(marks, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, format="png", metadata={"Software": "turnout"})


def _is_skewed(row: Mapping[str, Any]) -> bool:
    """Whether some experts were liked more; the first records had even choices alone."""
    return bool(row.get("skewed", False))


def _ratio(found: Mapping[str, float] | None) -> str:
    return "" if found is None else f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def written(text: str, body: Mapping[str, Any], *, others: bool = False) -> str:
    """Return the notes with what stands between the marks written anew."""
    begin, end = MARKS_OF_OTHERS if others else MARKS
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n{told(body, RIVALS_OF_OTHERS if others else RIVALS)}{end}{after}"


def main() -> None:
    body = json.loads((RESULTS / "moe_gpu.json").read_text(encoding="utf-8"))
    text = written(NOTES.read_text(encoding="utf-8"), body)
    others = RESULTS / "moe_gpu_others.json"
    if others.is_file():
        text = written(text, json.loads(others.read_text(encoding="utf-8")), others=True)
    NOTES.write_text(text, encoding="utf-8")
    draw(body["result"]["rows"], RESULTS / "moe_gpu.png")


if __name__ == "__main__":
    main()
