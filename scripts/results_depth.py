"""This module writes the parts of docs/results.md about depth: chains of steps, and batches that disagree."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.results_cells import Result, ends, spread


def chains(data: Result) -> Iterator[str]:
    """S12 on questions that need different depths."""
    result = data["result"]
    size = result["size"]
    shortest, longest = min(size["levels"]), max(size["levels"])
    yield (
        f"Chains of {shortest} to {longest} steps through fixed permutations, and copies; "
        f"{len(result['bases'])} Llamas of {size['layers']} blocks, {size['seeds']} routers each. The best "
        "fixed skip keeps at least as many blocks as the routers and is chosen on training questions. How a "
        "base is trained, that a label's every step must be right, and how many paths are shared was chosen "
        "on another base and other questions, out of four settings. First the routers as trained (knob 0)."
    )
    yield ""
    yield "| labels | right answers, all bases | minus dense | minus best fixed skip |"
    yield "|---|---|---|---|"
    for name, line in result["all_bases"].items():
        gains = (spread(line[key], form="+.3f") for key in ("gain_over_dense", "gain_over_best_fixed"))
        yield f"| {name} | {spread(line['quality'])} | {' | '.join(gains)} |"
    yield ""
    heads = ("base", "labels", "knob", "executed layers", "router", "random skip", "best fixed skip")
    yield f"| {' | '.join(heads)} | minus best fixed |"
    yield "|---|---|---|---|---|---|---|---|"
    for number, base in enumerate(result["bases"]):
        own = base["own_labels"]
        dense, layers = spread(base["dense"]["quality"]), size["layers"]
        yield f"| {number} | dense | - | {layers:.2f} | {dense} | - | - | - |"
        gain = spread(own["gain_over_best_fixed"], form="+.3f")
        right, calls = spread(own["quality"]), own["executed_layers"]["mean"]
        yield f"| {number} | what searches find for the test | - | {calls:.2f} | {right} | - | - | {gain} |"
        for kind in ("own", "shared"):
            for row in base[kind]["budgets"]:
                names = ("router", "random_skip", "best_fixed_skip")
                cells = [spread(row[name]["quality"]) for name in names]
                cells.append(spread(row["gain_over_best_fixed"], form="+.3f"))
                calls = row["router"]["executed_layers"]["mean"]
                yield f"| {number} | {kind} | {row['knob']:+.2f} | {calls:.2f} | {' | '.join(cells)} |"
    yield ""
    yield "By kind of question, shared labels:"
    yield ""
    yield "| base | questions | dense | router | its layers | shortest found | best fixed skip |"
    yield "|---|---|---|---|---|---|---|"
    for number, base in enumerate(result["bases"]):
        for line in base["shared"]["levels"]:
            found = base["own_labels"]["levels"][line["questions"]]
            layers = f"{line['router_layers']:.2f} | {found:.2f}"
            yield (
                f"| {number} | {line['count']} of {line['questions']} | {line['dense']:.3f} | "
                f"{line['router']:.3f} | {layers} | {line['best_fixed']:.3f} |"
            )


def mixed(data: Result) -> Iterator[str]:
    """The price of a batch that disagrees."""
    result = data["result"]
    yield (
        f"{result['batch']} sequences, {result['size']['layers']} blocks, each called by "
        f"{min(result['callers_of_each_block'])} to {max(result['callers_of_each_block'])} of them, "
        f"{result['executed_share']:.2f} of all calls; reading the prompt and decoding, dense over routed."
    )
    yield ""
    yield "| width | new tokens | pairs | faster, wall | faster, processor | FLOPs, share |"
    yield "|---|---|---|---|---|---|"
    for line in result["widths"]:
        faster = [
            ends(line[f"speedup_{clock}"], *line[f"speedup_{clock}_interval"], form=".2f")
            for clock in ("wall", "cpu")
        ]
        yield (
            f"| {line['width']} | {line['new_tokens']} | {line['pairs']} | {' | '.join(faster)} "
            f"| {line['flops_share']:.2f} |"
        )
