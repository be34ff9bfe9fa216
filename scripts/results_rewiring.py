"""This module writes the parts of docs/results.md about experts at test time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from scripts.results_cells import Result, ends, spread

PAPERS = "hard high sgd 5"
"""The arm with the paper's steps and layers."""


def rewiring(data: Result) -> Iterator[str]:
    """S26: change of loss, and cost."""
    result = data["result"]
    setting = result["setting"]
    families = {k: v for k, v in result.items() if isinstance(v, dict) and "shifted" in v}
    yield (
        "Does a model predict what comes next better after its gates were adjusted to what it has read? "
        f"Small models of {setting['layers']} blocks and {setting['experts']} experts a block are trained "
        f"on one kind of text ({result['texts']}). Each reads {setting['context']} characters of a context; "
        "vectors on its gates are optimised on them; what is judged is the loss of the "
        f"{setting['continuation']} that follow, which nothing was optimised on, against the same model as "
        f"it is: {setting['items']} contexts and {len(setting['seeds'])} seeds a kind of text, changes "
        "paired by context. Arms say the layers, the sign of the confidence, the optimiser and its number of "
        "steps of 0.05. *Peeked* has seen the continuation and is what vectors could do at most; *random* is "
        "noise of the same length."
    )
    yield ""
    verdicts = [f"{name} {_verdict(found['shifted'][PAPERS])}" for name, found in families.items()]
    yield f"With the paper's layers and steps (`{PAPERS}`), on shifted text: {'; '.join(verdicts)}."
    yield ""
    for kind in ("shifted", "unshifted"):
        yield from _arms(kind, families)
    yield from (f"- {name}: {found['gate']}." for name, found in families.items())
    yield ""
    yield from _price(setting, families)
    claims = "; ".join(f"{name.replace('_', ' ')}: {claim}" for name, claim in result["paper"].items())
    yield f"The paper. {claims}."


def _arms(kind: str, families: Mapping[str, Result]) -> Iterator[str]:
    """Yield a table of arms by family."""
    yield f"| {kind} text: change of loss, nats a token | {' | '.join(families)} |"
    yield "|---" * (len(families) + 1) + "|"
    bare = [found[kind]["dense"] for found in families.values()]
    yield f"| as it is: loss | {' | '.join(ends(b['loss'], *b['loss_interval']) for b in bare)} |"
    for arm in next(iter(families.values()))[kind]:
        if arm != "dense":
            yield f"| {arm} | {' | '.join(_change(found[kind][arm]) for found in families.values())} |"
    yield ""


def _price(setting: Result, families: Mapping[str, Result]) -> Iterator[str]:
    """Yield a table of times and FLOPs by family."""
    yield (
        f"What it costs to read {setting['context']} characters and to write {setting['generated']} more, as "
        "ratios to the model as it is (processor time; FLOPs):"
    )
    yield ""
    yield f"| | {' | '.join(families)} |"
    yield "|---" * (len(families) + 1) + "|"
    for name in next(iter(families.values()))["price"]:
        lines = [found["price"][name] for found in families.values()]
        cells = [
            f"{line['processor_ratio']:.2f}; {line['flops_ratio']:.2f}"
            if "processor_ratio" in line
            else f"-; {line['flops_ratio']:.2f}"
            for line in lines
        ]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""
    if "deepseek_v3" in families:
        yield (
            "DeepSeek-V3's attention unpacks the keys and values of all tokens anew at each one, so that "
            "its own writing costs more and steps beside it less."
        )
        yield ""


def _verdict(line: Result) -> str:
    low, high = line["change_interval"]
    told = "better" if high < 0 else "worse" if low > 0 else "no difference to be seen"
    return f"{_change(line)} ({told})"


def _change(line: Result) -> str:
    if "change" not in line:
        return "-"
    low, high = line["change_interval"]
    return ends(line["change"], low, high, form="+.4f")


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
