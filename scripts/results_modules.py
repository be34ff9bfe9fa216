"""This module writes the part of docs/results.md about sizes of modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scripts.results_cells import Result, spread


def duo(data: Result) -> Iterator[str]:
    """S22: loss of every policy at every budget."""
    result = data["result"]
    some = next(iter(result.values()))
    settings = some["settings"]
    yield (
        "Can a router tell which tokens need a big feed-forward module? A model of "
        f"{settings['layers']} blocks of width {settings['width']} is trained on text, then a big and a "
        "small module stand in every block and learn under random choices; a router learns last. `big` is "
        f"how many big modules may be spent, of {settings['layers']}; small ones and, where allowed, skips "
        "are free."
    )
    yield ""
    yield "How to read the columns, all in nats a token, lower is better:"
    yield ""
    yield from (
        "- `best fixed`: one choice for everything, found on other sequences; what a router has to beat.",
        "- `random`: the mean of random choices; `best of n`: of 100 such, the best for each sequence or "
        "token (it sees the answer); `best of n together`: the one of 100 that is best for all.",
        "- `greedy`, `exhaustive`: oracles, which see the answer. For sequences they choose one pattern for "
        "a whole sequence while `random` chooses anew for each token, so `best of n` can lie below them.",
        "- `router`: trained, sees no answer and spends about its budget; its regret is to an oracle that "
        "spends as much on the item.",
    )
    yield ""
    yield (
        "Intervals of losses are over items, all seeds on the same ones; they are wide because items differ, "
        "and all columns share those items. Where *single tokens* are routed, all others keep the best fixed "
        "pattern."
    )
    yield ""
    for corpus, found in result.items():
        how = f"{len(found['seeds'])} seeds, {found['patterns']:,} patterns each"
        yield f"**{corpus}, whole sequences** ({found['judged_sequences']} held out, {how}):"
        yield ""
        yield from _sizes(found["sequences"])
        yield f"**{corpus}, single tokens** ({found['judged_tokens']}, {how}):"
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
    if claim["claim"].startswith("small budgets go to late layers"):
        # Recorded is, in files of before, whether small budgets do; the claim is of large ones as well.
        small, large = claim["measured"]
        word = "earlier" if large < small else "later"
        held = verdicts[bool(claim["holds"] and large < small)]
        return f"{held}, the mean layer of large budgets is {word} than that of small ones"
    if "holds_per_token" not in claim:
        return verdicts[claim["holds"]]
    per_token = spread(claim["per_token"], form="+.3f")
    return (
        f"for single tokens it {verdicts[claim['holds_per_token']]} ({per_token}), "
        f"for whole sequences it {verdicts[claim['holds']]}"
    )


def _brief(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"value", "low", "high"}:
        return spread(value, form="+.3f")
    if isinstance(value, dict):
        return "; ".join(f"{name.replace('_', ' ')}: {_brief(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(_brief(item) for item in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
