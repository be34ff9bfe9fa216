"""This module writes the part of docs/results.md about one dial over models and depths."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.results_cells import Result, ends, table


def local(data: Result) -> Iterator[str]:
    """One dial over two models and their depths."""
    result = data["result"]
    dial, fixed, dearest = result["dial"], result["fixed"], result["serving"]["model"]
    depths = [name for name in fixed if "[effort=" in name]
    shares = [sum(line["served"].get(name, 0.0) for name in depths) for line in dial]
    answered = [line["quality"][0] > 0 for line in dial]
    shares = [share for share, is_any in zip(shares, answered, strict=True) if is_any]
    used = f"{sum(share > 0 for share in shares)} of the {len(shares)} settings at which anything is right"
    yield (
        f"**The dial asks a reduced depth at {used}, for at most {max(shares):.0%} of the questions; all "
        "other answers are of models at full depth.**"
    )
    yield ""
    yield (
        f"{result['questions']} held-out questions through a real gateway. Each row of the dial is one value "
        "of the header `x-turnout-usd-per-quality`: how much one more right answer is worth. It is given as "
        f"a number of answers of `{dearest}`, the dearest candidate: at 4, the gateway asks for something "
        f"dearer only where each right answer that this adds costs no more than four answers of `{dearest}`. "
        f"`lean` and `least` are `{dearest.split('[')[0]}` with a depth router, at the share of its blocks "
        "that `turnout local` sets. Cost is in 1e-9 usd per 1,000 questions. The tasks and the length of "
        "the training were chosen by answers to other questions."
    )
    yield ""
    rows = []
    for line in dial:
        served = ", ".join(f"`{name}` {share:.0%}" for name, share in sorted(line["served"].items()))
        worth = f"{line['worth_in_mean_costs']:g} of `{dearest}`"
        if not line["worth_in_mean_costs"]:
            # The gateway takes no dial of 0; what is sent for it is worth less than any cost here.
            worth = "next to nothing (the header says 1e-15 usd)"
        rows.append((worth, *_quality_and_cost(line), served))
    yield from table(("a right answer is worth", "right answers", "cost", "who answers"), rows)
    yield ""
    yield "Without a choice, on the same questions (`random` is an even draw, `oracle` knows the answers):"
    yield ""
    ordered = sorted(fixed.items(), key=lambda pair: pair[1]["usd_per_1k"][0])
    always = [(f"`{name}`", *_quality_and_cost(line)) for name, line in ordered]
    yield from table(("always", "right answers", "cost"), always)
    yield ""
    yield f"Requests to `{dearest}` that wait together are answered together:"
    yield ""
    speeds = []
    for line in result["serving"]["lines"]:
        rate = sorted(line["requests_per_s"])[len(line["requests_per_s"]) // 2]
        p50, p99 = line["latency_p50_s"], line["latency_p99_s"]
        speeds.append((str(line["together"]), f"{rate:.0f}", f"{p50:.3f}", f"{p99:.3f}"))
    yield from table(("requests at a time", "requests a second, median", "p50, s", "p99, s"), speeds)


def _quality_and_cost(line: Result) -> tuple[str, str]:
    return ends(*line["quality"]), ends(*line["usd_per_1k"], scale=1e9, form=".2f")
