"""This module writes the parts of docs/results.md about depth: Dr.LLM, chains of steps, mixed batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scripts.results_cells import Result, faster, spread, table

SKIPS = {"router": "router", "random_skip": "random skip", "best_fixed_skip": "best fixed skip"}
"""Who decides on depth, by its name in the results and in the tables."""
GAINS = {
    "gain_over_random": "router minus random",
    "gain_over_best_fixed": "router minus best fixed",
    "regret": "regret to what searches find",
}
LIGHT, BESIDE = "both_in_inference_mode", "beside_all_executed"
MIXES = (
    "batch_8_mixed",
    "batch_8_mixed_as_called",
    "batch_8_mixed_without_repeats",
    "batch_8_mixed_split_into_groups",
)
"""How a batch that disagrees is decoded: in inference mode, or dense as the library has it."""
SPEEDS = ("faster, wall", "faster, processor", "FLOPs, share")


def depth(data: Result) -> Iterator[str]:
    """S12: quality against executed layers, and time."""
    result = data["result"]
    yield from _depth_lead(result)
    yield from _depth_tables(result)
    yield from _depth_speed(result)


def _depth_lead(result: Result) -> Iterator[str]:
    size, dense = result["base"], result["dense"]
    trained, own = (
        next(line for line in result[part] if not line["knob"]) for part in ("budgets_shared", "budgets")
    )
    layers = trained["router"]["executed_layers"]["mean"]
    faster = result["speed"]["batch_1"]["speedup_wall"]
    yield (
        f"**The router whose labels are shared keeps {spread(trained['router']['quality'])} of right answers "
        f"(dense {spread(dense['quality'])}) at {layers:.2f} of {size['layers']} layers, and decodes "
        f"{faster:.2f} times faster. Against the best fixed skip of as many layers that is "
        f"{spread(trained['gain_over_best_fixed'], scale=100, form='+.1f')} points; with each question's own "
        "path as its label, as in the paper, "
        f"{spread(own['gain_over_best_fixed'], scale=100, form='+.1f')}.**"
    )
    yield ""
    labels = result["own_labels"]
    yield (
        f"A Llama of {size['layers']} blocks on tasks with checkable answers ({', '.join(size['tasks'])}), "
        f"trained with {size['drop']:.0%} of its blocks left out by chance. The paths that searches find "
        f"when they see the answers give {spread(labels['quality'])} at "
        f"{labels['executed_layers']['mean']:.2f} layers. The best fixed skip is chosen on the training "
        "questions."
    )
    yield ""
    yield (
        "Changed on the way: tasks and length of the base's training, after its quality on training "
        "questions had come out low; its blocks, the share left out and how much shorter a search looks, "
        "after runs that saved less; shared labels, after routers of each question's own path had stayed "
        "below the best fixed skip."
    )
    yield ""


def _depth_tables(result: Result) -> Iterator[str]:
    kinds = (("budgets", "own", "each its own path, as in the paper"), ("budgets_shared", "shared", "shared"))
    for part, kind, phrase in kinds:
        taught = result[kind]
        yield (
            f"Labels: {phrase}; {taught['different_paths']} different ones for {taught['taught']} training "
            f"questions, {taught['label_layers']:.2f} layers on average."
        )
        yield ""
        shown = {key: head for key, head in GAINS.items() if key in result[part][0]}
        rows = [list(_budget(row, *shown)) for row in result[part]]
        yield from table(("knob", "executed layers", *SKIPS.values(), *shown.values()), rows)
        yield ""


def _depth_speed(result: Result) -> Iterator[str]:
    speed = result["speed"]
    yield (
        f"Time of a router of shared labels at the knob nearest to 70 % of the layers (quality "
        f"{spread(speed['quality_of_this_router'])}, dense {spread(speed['quality_dense'])}; its own part "
        f"{speed['router_share_of_time']:.1%} of the time; different decisions among all test questions: "
        f"{speed['decisions']}, so a mixed batch mixes no more than that), {speed['new_tokens']} tokens, "
        "dense over routed:"
    )
    yield ""
    mixes = [name for name in MIXES if name in speed]
    beside = [f"{name}_{BESIDE}" for name in ("batch_1", "batch_8_grouped") if f"{name}_{BESIDE}" in speed]
    share = f"{speed['executed_share_alone']:.2f}"
    times: list[Sequence[str]] = [
        (name.replace("_", " "), share, *_speeds(speed[name]))
        for name in ("batch_1", "batch_8_grouped", *mixes, *beside)
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


def _budget(row: Result, *gains: str) -> Iterator[str]:
    """Yield the cells of one knob: itself, layers, quality of router and skips, and gains."""
    yield f"{row['knob']:+.2f}"
    yield f"{row['router']['executed_layers']['mean']:.2f}"
    yield from (spread(row[name]["quality"]) for name in SKIPS)
    yield from (spread(row[name].get("regret", row[name]), form="+.3f") for name in gains)


def mixed(data: Result) -> Iterator[str]:
    """The price of a batch that disagrees."""
    result = data["result"]
    lines = result["widths"]
    yield (
        f"{result['size']['layers']} blocks, each called by some sequences of the batch and never by all; "
        "reading the prompt and decoding, dense over routed."
    )
    has_light, has_beside = (all(name in line for line in lines) for name in (LIGHT, BESIDE))
    if has_light:
        yield (
            "Both are called as anybody calls them: the wrapper decodes in inference mode, which the "
            "library's `generate` does not. "
            f"{'A' if has_beside else 'The last'} column has the dense model there, too."
        )
    if has_beside:
        yield (
            "The wrapper also has less to do between two tokens, whatever is skipped: the last column is its "
            "speed beside itself with all blocks executed."
        )
    yield ""
    names = ("width", "batch", "new_tokens", "pairs")
    rows = [
        (
            *(str(line.get(name, result.get(name))) for name in names),
            f"{line.get('executed_share', result.get('executed_share')):.2f}",
            *_speeds(line),
            *((faster(line[LIGHT], "wall"),) if has_light else ()),
            *((faster(line[BESIDE], "wall"),) if has_beside else ()),
        )
        for line in lines
    ]
    heads = ("width", "sequences", "new tokens", "pairs", "share of calls", *SPEEDS)
    light = ("both in inference mode",) if has_light else ()
    beside = ("beside the wrapper",) if has_beside else ()
    yield from table((*heads, *light, *beside), rows)


def _speeds(line: Result) -> Iterator[str]:
    """Yield the cells of a comparison in time: by both clocks, and the share of the operations."""
    yield from (faster(line, clock) for clock in ("wall", "cpu"))
    yield f"{line['flops_share']:.2f}"
