"""This module writes the parts of docs/results.md about sizes of modules and experts at test time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scripts.results_cells import Result, ends, spread


def duo(data: Result) -> Iterator[str]:
    """S22: loss of every policy at every budget."""
    yield (
        "`big` is the budget, the number of big layers; small ones and skips are free. The best fixed "
        "pattern is chosen on other sequences. Random routings of sequences choose for each token, the "
        "oracles one pattern for each sequence; `best of n` takes the best of 100 routings for each "
        "sequence, `together` one for all. Single tokens are routed while all others keep the best fixed "
        "pattern. Losses are nats per token, of all seeds on the same items, over which the intervals are; "
        "a router spends about its budget, and its regret is to an oracle that spends as much on an item."
    )
    yield ""
    for corpus, found in data["result"].items():
        how = f"{len(found['seeds'])} seeds, {found['patterns']:,} patterns each"
        yield f"{corpus}: {found['judged_sequences']} held-out sequences, {how}."
        yield ""
        yield from _sizes(found["sequences"])
        yield f"{corpus}: {found['judged_tokens']} single tokens, {how}."
        yield ""
        yield from _sizes(found["tokens"])
        yield "The paper's claims:"
        yield ""
        for claim in found["claims"]:
            yield f"- {claim['claim']}: {_held(claim)} ({_brief(claim['measured'])})"
        yield ""


def _sizes(lines: list[Result]) -> Iterator[str]:
    """Yield a table of policies by budget, and what uniform choices come to."""
    names = ("best_fixed", "random", "best_of_n_together", "best_of_n", "greedy", "exhaustive", "router")
    yield f"| big | {' | '.join(name.replace('_', ' ') for name in names)} | router's regret |"
    yield "|---|" + "---|" * (len(names) + 1)
    for line in lines:
        cells = [spread(line[name]["loss"]) if name in line else "-" for name in names]
        own = spread(line["router"]["regret"]) if "router" in line else "-"
        yield f"| {line['budget']} | {' | '.join(cells)} | {own} |"
    yield ""
    # What costs nothing is shown where nothing may be spent, all big where all may be.
    uniform = (("all_small", lines[0]), ("all_skip", lines[0]), ("all_big", lines[-1]))
    yield (
        "; ".join(f"{n.replace('_', ' ')} {spread(line[n]['loss'])}" for n, line in uniform if n in line)
        + "."
    )
    yield ""


def _held(claim: Result) -> str:
    """Return whether a claim held, for single tokens too where it was asked of them."""
    verdicts = {True: "held here", False: "did not hold here"}
    if "holds_per_token" not in claim:
        return verdicts[claim["holds"]]
    per_token = spread(claim["per_token"], form="+.3f")
    return (
        f"for single tokens it {verdicts[claim['holds_per_token']]} ({per_token}), "
        f"for whole sequences it {verdicts[claim['holds']]}"
    )


def rewiring(data: Result) -> Iterator[str]:
    """S26: change of loss, and cost."""
    result = data["result"]
    for family, found in result.items():
        if not isinstance(found, dict) or "shifted" not in found:
            continue
        yield f"{family}: change of the loss of the continuation, nats per token; below 0 is better."
        yield ""
        yield "| arm | shifted text | unshifted text |"
        yield "|---|---|---|"
        for arm in found["shifted"]:
            cells = [_change(found[kind][arm]) for kind in ("shifted", "unshifted")]
            yield f"| {arm} | {' | '.join(cells)} |"
        yield ""
        yield "| generating | seconds, ratio | processor time, ratio | FLOPs, ratio |"
        yield "|---|---|---|---|"
        for name, line in found["price"].items():
            times = [
                f"{line[key]:.2f}" if key in line else "-" for key in ("seconds_ratio", "processor_ratio")
            ]
            yield f"| {name} | {' | '.join(times)} | {line['flops_ratio']:.2f} |"
        yield ""
    claims = "; ".join(f"{name.replace('_', ' ')}: {claim}" for name, claim in result["paper"].items())
    yield f"The paper. {claims}."


def _change(line: Result) -> str:
    if "change" not in line:
        return "-"
    low, high = line["change_interval"]
    return ends(line["change"], low, high, form="+.4f")


def _brief(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"value", "low", "high"}:
        return spread(value, form="+.3f")
    if isinstance(value, dict):
        return "; ".join(f"{name.replace('_', ' ')}: {_brief(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(_brief(item) for item in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def rewiring_tasks(data: Result) -> Iterator[str]:
    """S26: answers that can be checked, before and after."""
    result = data["result"]
    setting, tasks = result["setting"], result["tasks"]
    common, rare = (", ".join(tasks[kind]) for kind in ("common", "rare"))
    yield (
        f"OLMoE models of {setting['layers']} layers and {setting['experts']} experts, "
        f"{len(setting['seeds'])} seeds, trained on solved questions ({common}; {rare} in "
        f"{setting['rare_share']:.0%} of the lines), {setting['levels'][0]} to {setting['levels'][-1]} long. "
        f"A prompt holds {setting['lines'] - 1} solved questions and an open one; 5 steps of 0.05 on the "
        "prompt, then a greedy answer. *Longer*: questions longer than any in training. *Rare*: all lines "
        f"are of the rare tasks. {setting['items']} prompts a seed and kind; changes are paired."
    )
    yield ""
    kinds = result["kinds"]
    names = [f"{kind}: {what}" for kind in kinds for what in ("right", "change")]
    yield f"| arm | {' | '.join(names)} | time, ratio | FLOPs, ratio |"
    yield "|---|" + "---|" * (len(names) + 2)
    for arm in kinds["unshifted"]:
        cells = []
        for lines in kinds.values():
            cells += [spread(lines[arm]["right"]), spread(lines[arm]["right_change"], form="+.3f")]
        cost = result["price"].get(arm)
        cells += (
            ["-", "-"] if cost is None else [f"{cost[k]:.2f}" for k in ("processor_ratio", "flops_ratio")]
        )
        yield f"| {arm} | {' | '.join(cells)} |"
    yield ""
    yield "| arm | " + " | ".join(f"{kind}: loss of the right answer, change" for kind in kinds) + " |"
    yield "|---|" + "---|" * len(kinds)
    for arm in kinds["unshifted"]:
        if arm != "dense":
            changes = [spread(lines[arm]["loss_change"], form="+.4f") for lines in kinds.values()]
            yield f"| {arm} | {' | '.join(changes)} |"
    yield ""
    yield f"The paper. {'; '.join(f'{name}: {claim}' for name, claim in result['paper'].items())}."
    yield ""
    shifted = {kind: lines["hard high sgd (the paper's)"]["right_change"] for kind, lines in kinds.items()}
    gains = {kind: change for kind, change in shifted.items() if kind != "unshifted"}
    verdict = "held" if all(change["low"] > 0 for change in gains.values()) else "did not hold"
    told = "; ".join(f"{kind} {spread(change, form='+.3f')}" for kind, change in gains.items())
    yield (
        f"A gain in right answers under shift, with its steps and layers: {verdict} here ({told}). Answers "
        "have a few tokens, so that the price is nearly all that of the steps."
    )
