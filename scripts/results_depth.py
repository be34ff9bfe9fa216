"""This module writes the parts of docs/results.md about depth: Dr.LLM, chains of steps, mixed batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scripts.results_cells import Result, faster, spread, table

SKIPS = {"router": "router", "random_skip": "random skip", "best_fixed_skip": "best fixed skip"}
"""Who decides on depth, by its name in the results and in the tables."""
SPEEDS = ("faster, wall", "faster, processor", "FLOPs, share")


def depth(data: Result) -> Iterator[str]:
    """S12: quality against executed layers, and time."""
    result = data["result"]
    yield (
        f"A Llama of {result['base']['layers']} blocks; dense {spread(result['dense']['quality'])}; "
        f"the searches' own labels, which see the answer, {spread(result['own_labels']['quality'])} at "
        f"{result['own_labels']['executed_layers']['mean']:.2f} layers. The fixed skip is chosen on "
        "training questions. The tasks and the length of the base's training were changed after its dense "
        "quality on such questions had come out too low; its blocks, the share that is dropped in training "
        "and how much shorter a search looks after runs that saved less; that labels may be shared after "
        "routers of each question's own path had stayed below the best fixed skip."
    )
    yield ""
    kinds = (("budgets", "own", "each its own path, as in the paper"), ("budgets_shared", "shared", "shared"))
    for part, kind, phrase in kinds:
        taught = result[kind]
        yield (
            f"Labels: {phrase}; {taught['different_paths']} different ones for {taught['taught']} training "
            f"questions, {taught['label_layers']:.2f} layers on average."
        )
        yield ""
        rows = [list(_budget(row, "gain_over_random", "gain_over_best_fixed")) for row in result[part]]
        gains = ("router minus random", "router minus best fixed")
        yield from table(("knob", "executed layers", *SKIPS.values(), *gains), rows)
        yield ""
    speed = result["speed"]
    yield (
        f"Time of a router of shared labels at the knob nearest to 70 % of the layers (quality "
        f"{spread(speed['quality_of_this_router'])}, dense {spread(speed['quality_dense'])}; its own part "
        f"{speed['router_share_of_time']:.1%} of the time; different decisions among all test questions: "
        f"{speed['decisions']}, so a mixed batch mixes no more than that), {speed['new_tokens']} tokens, "
        "dense over routed:"
    )
    yield ""
    mixes = ("batch_8_mixed", "batch_8_mixed_without_repeats", "batch_8_mixed_split_into_groups")
    share = f"{speed['executed_share_alone']:.2f}"
    times: list[Sequence[str]] = [
        (name.replace("_", " "), share, *_speeds(speed[name]))
        for name in ("batch_1", "batch_8_grouped", *mixes)
    ]
    if own := result.get("speed_own"):
        times += [
            (f"{name.replace('_', ' ')}, each its own path", "-", *_speeds(own[name])) for name in mixes
        ]
    yield from table(("batch", "executed layers, share", *SPEEDS), times)
    claim = result["paper"]
    yield ""
    points, saved = claim["quality_points"], claim["layers_saved_per_example"]
    yield f"The paper: +{points} points and {saved} layers fewer; {claim['setting']}."


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
    lines = []
    for name, line in result["all_bases"].items():
        gains = (spread(line[key], form="+.3f") for key in ("gain_over_dense", "gain_over_best_fixed"))
        lines.append((name, spread(line["quality"]), *gains))
    yield from table(("labels", "right answers, all bases", "minus dense", "minus best fixed skip"), lines)
    yield ""
    heads = ("base", "labels", "knob", "executed layers", *SKIPS.values(), "minus best fixed")
    yield from table(heads, _bases(result["bases"], size["layers"]))
    yield ""
    yield "By kind of question, shared labels:"
    yield ""
    kinds = []
    for number, base in enumerate(result["bases"]):
        for line in base["shared"]["levels"]:
            found = base["own_labels"]["levels"][line["questions"]]
            rights = [f"{line[name]:.3f}" for name in ("dense", "router")]
            layers = [f"{value:.2f}" for value in (line["router_layers"], found)]
            asked = f"{line['count']} of {line['questions']}"
            kinds.append((str(number), asked, *rights, *layers, f"{line['best_fixed']:.3f}"))
    heads = ("base", "questions", "dense", "router", "its layers", "shortest found", "best fixed skip")
    yield from table(heads, kinds)


def _bases(bases: Sequence[Result], layers: float) -> Iterator[Sequence[str]]:
    """Yield the rows of each base: dense, what searches find, and the routers at each knob."""
    for number, base in enumerate(bases):
        own = base["own_labels"]
        yield str(number), "dense", "-", f"{layers:.2f}", spread(base["dense"]["quality"]), "-", "-", "-"
        gain, calls = spread(own["gain_over_best_fixed"], form="+.3f"), own["executed_layers"]["mean"]
        found = ("what searches find for the test", "-", f"{calls:.2f}", spread(own["quality"]))
        yield str(number), *found, "-", "-", gain
        for kind in ("own", "shared"):
            for row in base[kind]["budgets"]:
                yield str(number), kind, *_budget(row, "gain_over_best_fixed")


def _budget(row: Result, *gains: str) -> Iterator[str]:
    """Yield the cells of one knob: itself, layers, quality of router and skips, and gains."""
    yield f"{row['knob']:+.2f}"
    yield f"{row['router']['executed_layers']['mean']:.2f}"
    yield from (spread(row[name]["quality"]) for name in SKIPS)
    yield from (spread(row[name], form="+.3f") for name in gains)


def mixed(data: Result) -> Iterator[str]:
    """The price of a batch that disagrees."""
    result = data["result"]
    yield (
        f"{result['batch']} sequences, {result['size']['layers']} blocks, each called by "
        f"{min(result['callers_of_each_block'])} to {max(result['callers_of_each_block'])} of them, "
        f"{result['executed_share']:.2f} of all calls; reading the prompt and decoding, dense over routed."
    )
    yield ""
    names = ("width", "new_tokens", "pairs")
    rows = [(*(str(line[name]) for name in names), *_speeds(line)) for line in result["widths"]]
    yield from table(("width", "new tokens", "pairs", *SPEEDS), rows)


def _speeds(line: Result) -> Iterator[str]:
    """Yield the cells of a comparison in time: by both clocks, and the share of the operations."""
    yield from (faster(line, clock) for clock in ("wall", "cpu"))
    yield f"{line['flops_share']:.2f}"
