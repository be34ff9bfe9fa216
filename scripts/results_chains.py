"""This module writes the part of docs/results.md about depth where questions differ in what they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scripts.results_cells import Result, faster, spread, table

NAMES = {
    "dense": "all blocks",
    "labels": "shortest paths that searches find for the test",
    "fixed": "best fixed skip of that quality",
    "own": "router, each question its own path, as in the paper",
    "shared": "router, shared paths",
}

SPEEDS = {
    "batch_1": "batch 1",
    "batch_8_grouped": "batch 8, grouped",
    "batch_8_mixed": "batch 8, mixed",
    "batch_8_mixed_as_called": "mixed, as called",
    "batch_8_mixed_split_into_groups": "mixed, split into groups",
    "batch_1_beside_all_executed": "batch 1, beside the wrapper",
    "batch_8_grouped_beside_all_executed": "grouped, beside the wrapper",
    "batch_8_mixed_beside_all_executed": "mixed, beside the wrapper",
}
"""How answers are decoded, by its name in the results and in the table."""

BESIDE = "beside_all_executed"
"""How a comparison with the wrapper that executes all blocks is called."""

SPARED, FASTER = 0.29, 1.25
"""Share of layers from which a router counts as sparing 30 %, and the speed that was asked for there."""


def chains(data: Result) -> Iterator[str]:
    """S12 on questions that need different depths."""
    result = data["result"]
    size, gains = result["size"], result["gains"]
    shortest, longest = min(size["levels"]), max(size["levels"])
    fewer, better = (gains[f"shared minus fixed of the same {what}"] for what in ("floor", "layers"))
    yield f"**{_verdict(better['quality'], fewer)}**"
    yield ""
    test, choice, train = size["questions"]
    yield (
        f"The questions are chains of {shortest} to {longest} steps: a letter goes through permutations one "
        f"after another, so that a longer chain needs more blocks. {len(result['bases'])} Llamas of "
        f"{size['layers']} blocks were trained until they answered {size['bar']:.0%} of the training "
        f"questions with every step right, then {size['seeds']} routers of each kind on {train} questions. "
        f"The knob and the number of shared paths ({', '.join(map(str, size['shared']))}) were chosen on "
        f"{choice} others: the fewest layers that keep {size['floor']:.0%} of the dense quality. The best "
        "fixed skip is the best of all patterns on the training questions, with as many blocks as the same "
        f"rule asks for; since a router's mean is no whole number of blocks, two fixed skips are also mixed "
        f"by chance so as to spend the same. {test} further questions judge. How bases are trained and that "
        "every step counts for a label was chosen on one base and other questions; the mix was added when "
        "the first base had been judged."
    )
    yield ""
    lines = []
    for name, phrase in NAMES.items():
        line = result["rows"][name]
        layers, right = spread(line["executed_layers"], form=".2f"), spread(line["quality"])
        lines.append((phrase, layers, right, spread(line["gain_over_dense"], form="+.3f")))
    yield from table(("who decides", "executed layers", "right answers", "minus dense"), lines)
    yield ""
    pairs = [
        (name, spread(line["quality"], form="+.3f"), spread(line["layers"], form="+.2f"))
        for name, line in gains.items()
    ]
    yield from table(("difference, paired by question", "right answers", "layers"), pairs)
    yield ""
    yield from _bases(result["bases"])
    if all("speed" in base for base in result["bases"]):
        yield from speed([base["speed"] for base in result["bases"]], size["layers"])
    yield from _regrets(result["regret"], size["layers"])
    yield from _steps(result["bases"])


def _verdict(gain: Result, fewer: Result) -> str:
    """Say whether deciding for each question beats the best fixed skip."""
    said = spread(gain, scale=100, form="+.1f")
    if gain["low"] > 0:
        first = f"Deciding for each question beats the best fixed skips of the same layers, by {said} points"
    elif gain["high"] < 0:
        first = f"The best fixed skips of the same layers beat deciding for each question ({said} points)"
    else:
        first = (
            f"Deciding for each question ties with the best fixed skips of the same layers ({said} points)"
        )
    return (
        f"{first}. Where both were chosen for the same floor of quality, the difference is "
        f"{spread(fewer['layers'], form='+.2f')} executed layers and "
        f"{spread(fewer['quality'], scale=100, form='+.1f')} points."
    )


def _bases(bases: Sequence[Result]) -> Iterator[str]:
    yield "Each base, with what was chosen for it (right answers at executed layers):"
    yield ""
    rows = []
    for number, base in enumerate(bases):
        at = {name: base["rows"][name] for name in ("dense", "fixed", "own", "shared")}
        cells = {
            name: f"{line['quality']['mean']:.3f} at {line['executed_layers']['mean']:.2f}"
            for name, line in at.items()
        }
        own, shared = base["own_chosen"], base["shared_chosen"]
        gain = spread(base["gains"]["shared minus fixed of the same layers"]["quality"], form="+.3f")
        taught = f"{cells['shared']}, {shared['paths']} and {shared['knob']:+.1f}"
        own_cell = f"{cells['own']}, {own['knob']:+.1f}"
        rows.append((str(number), cells["dense"], cells["fixed"], own_cell, taught, gain))
    heads = (
        "base",
        "dense",
        "fixed",
        "own, knob",
        "shared, paths and knob",
        "shared minus fixed of the same layers",
    )
    yield from table(heads, rows)
    yield ""


def _reached(lines: Sequence[Result], name: str) -> int:
    """Return how many routers are as much faster as was asked for."""
    return sum(round(line[name]["speedup_wall"], 2) >= FASTER for line in lines)


def _asked(lines: Sequence[Result], layers: int) -> str:
    """Say how many routers reach what was asked of speed, and how many fall short."""
    spared = [line for line in lines if round(1 - line["executed_layers"]["mean"] / layers, 2) >= SPARED]
    alone, grouped = (_reached(spared, name) for name in ("batch_1", "batch_8_grouped"))
    mixed = [line["batch_8_mixed"]["speedup_wall"] for line in lines]
    slower = [value for value in mixed if value < 1]
    text = (
        f"Asked for were {FASTER} times the speed at 30 % fewer layers. Of the {len(spared)} routers here "
        f"with {SPARED:.0%} or more fewer, {alone} reach that alone and {grouped} in groups"
        f"{'; the others fall short' if min(alone, grouped) < len(spared) else ''}."
    )
    if all(f"batch_1_{BESIDE}" in line for line in lines):
        alone, grouped = (_reached(spared, f"{name}_{BESIDE}") for name in ("batch_1", "batch_8_grouped"))
        text += (
            " The wrapper has less to do between two tokens than the library, whatever is skipped: beside "
            f"itself with all blocks executed {alone} reach it alone and {grouped} in groups."
        )
    if not slower:
        text += " Mixed batches were to be no slower than the dense model: none is."
    if slower:
        text += (
            f" Mixed batches were to be no slower than the dense model: {len(slower)} of {len(mixed)} are, "
            f"by {1 - max(slower):.0%} to {1 - min(slower):.0%}, where both run in inference mode."
        )
    return text


def speed(bases: Sequence[Result], layers: int) -> Iterator[str]:
    """Yield what decoding takes, each router beside its own quality."""
    lines = [(number, line) for number, base in enumerate(bases) for line in base["routers"]]
    paths, uncalled = (
        [value for _, line in lines for value in line[key]] for key in ("paths_mixed", "uncalled_share_mixed")
    )
    first = lines[0][1]["batch_1"]["items"]
    costs = [line[f"router_share_of_time{batch}"] for _, line in lines for batch in ("", "_batch_8")]
    yield (
        f"Time of the routers of shared paths for {bases[0]['new_tokens']} tokens an answer: dense over "
        "routed, by the clock on the wall, both in inference mode but where they are timed as called. "
        "Each router stands beside the quality and the layers that the "
        f"same one has on all questions of the test; the first {first} of these are "
        "decoded alone, in batches of eight that are decided alike, and eight by eight as they come (mixed: "
        f"{min(paths)} to {max(paths)} different paths in a batch, {sum(uncalled) / len(uncalled):.0%} of "
        f"the blocks called by no row). The router's own part is {min(costs):.1%} to {max(costs):.1%} of the "
        "processor's time. The second knob of a router is the one that calls 70 % of the blocks on the "
        "questions of the choice."
    )
    yield ""
    heads = {name: head for name, head in SPEEDS.items() if all(name in line for _, line in lines)}
    rows = []
    for number, line in lines:
        spent = line["executed_layers"]["mean"]
        rows.append(
            (
                f"{number}, {line['router']}, {line['knob']:+.2f}",
                f"{spread(line['quality'])}, dense {line['dense']['mean']:.3f}",
                f"{spent:.2f}, {1 - spent / layers:.0%} fewer",
                *(faster(line[name], "wall") for name in heads),
                f"{line['router_share_of_time']:.1%}",
            )
        )
    names = ("base, router, knob", "right answers", "executed layers")
    yield from table((*names, *heads.values(), "router's share"), rows)
    yield ""
    yield _asked([line for _, line in lines], layers)
    yield ""


def _regrets(lines: Sequence[Result], layers: int) -> Iterator[str]:
    yield (
        f"Regret, on {lines[0]['questions']} of these questions on which all {3**layers:,} paths were tried "
        "(skip, execute, repeat): the share of wrong answers beyond that of the best path of at most as "
        "many calls on the same question. An answer counts as right where every step is. It does not say "
        "whether the calls went to the questions that need them; the tables around it do."
    )
    yield ""
    rows = []
    for line in lines:
        numbers = (f"{line['budget']:.2f}", spread(line["loss"]), f"{line['oracle_loss']:.3f}")
        rows.append((NAMES[line["name"]], *numbers, spread(line["regret"])))
    yield from table(("who decides", "calls", "wrong", "wrong, best path of as many calls", "regret"), rows)
    yield ""


def _steps(bases: Sequence[Result]) -> Iterator[str]:
    yield "By steps of the question, means over bases (right answers at executed layers):"
    yield ""
    names = ("labels", "shared", "own", "fixed")
    rows = []
    for at, line in enumerate(bases[0]["levels"]):
        cells = []
        for name in names:
            right, layers = (
                sum(base["levels"][at][name][key] for base in bases) / len(bases)
                for key in ("right", "layers")
            )
            cells.append(f"{right:.3f} at {layers:.2f}")
        rows.append((str(line["steps"]), str(line["count"]), *cells))
    yield from table(("steps", "questions", *(NAMES[name] for name in names)), rows)
