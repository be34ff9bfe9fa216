"""This module writes the parts of docs/results.md about the systems inside a model and in sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scripts.results_adapters import adapters, token_gates
from scripts.results_cells import Result, spread, table
from scripts.results_chains import chains
from scripts.results_depth import depth, mixed
from scripts.results_local import local
from scripts.results_modules import duo
from scripts.results_rewiring import rewiring, rewiring_tasks
from turnout.nn.bench.summary import GROUPS, group_of

Writers = Mapping[str, tuple[str, Callable[[Result], Iterator[str]]]]
"""Result file -> heading and writer."""


ONE_SHOT = ("one-shot kNN", "one-shot auto")


def sequential(data: Result) -> Iterator[str]:
    """S7 on real tables: one line a price."""
    result = data["result"]
    for name, found in result["tables"].items():
        head = f"{name}, {found['candidates']} candidates, cost in {found['unit']}"
        what = "quality (cost)" if found["unit"] == "usd" else "quality (cost; calls a query)"
        groups = found.get("groups", {}).get("test", found["queries"]["test"])
        near = "" if groups == found["queries"]["test"] else f", {groups} groups of near-same texts"
        yield f"{head}: {what} on {found['queries']['test']:,} held-out queries{near}."
        yield ""
        methods = list(found["prices"][0]["methods"])
        lines = []
        for row in found["prices"]:
            cells = [_point(row["methods"][m], found["unit"]) for m in methods]
            leads = [spread(row["learned_minus"][other], form="+.4f") for other in ONE_SHOT]
            lines.append((f"{row['price']:.3g}", *cells, *leads))
        yield from table(
            ("price", *methods, *(f"learned minus {other}, utility" for other in ONE_SHOT)), lines
        )
        yield ""
        verdicts = [
            f"{name} {found['verdict'][name]['better']} better, {found['verdict'][name]['worse']} worse"
            for name in ("one-shot kNN", "one-shot auto", "best single", "cascade")
            if name in found["verdict"]
        ]
        yield f"Learned against (of {len(found['prices'])} prices, by interval): {'; '.join(verdicts)}."
        yield ""
    won = [name for name, found in result["tables"].items() if _wins(found["verdict"])]
    held = f"It held here on {', '.join(won)}" if won else "It did not hold here"
    yield (
        f"The claim beside it: {result['claim']}. {held}: it holds on a table where, by interval, "
        "the learned policy is better than one-shot kNN, one-shot `auto` and the best single model at some "
        "price, and worse than none of them at any. The policy here is linear in features, no language model."
    )
    yield ""
    yield "Share of the optimum in the synthetic task, whose optimum is known:"
    yield ""
    rows = result["synthetic"]
    names = list(rows[0]["share"])
    shares = [(f"{row['budget_usd']:.3g}", *(_share(row["share"][name]) for name in names)) for row in rows]
    yield from table(("budget, usd", *names), shares)
    yield ""
    taken = [f"{name}: {v['p50_ms']:.3f} ms" for name, v in result["overhead"].items() if isinstance(v, dict)]
    yield f"A step of the loop without model calls, median: {', '.join(taken)}."


def _wins(verdict: Result) -> bool:
    """Return whether the learned policy beats those that call once, somewhere, and loses to none anywhere."""
    rivals = [verdict[name] for name in (*ONE_SHOT, "best single")]
    return all(rival["better"] and not rival["worse"] for rival in rivals)


def _point(found: Result, unit: str) -> str:
    """Return a method's quality and cost; where tokens stand for money, its calls as well."""
    calls = "" if unit == "usd" else f"; {found['calls']:.2f}"
    return f"{found['quality']['value']:.3f} ({found['cost']['value']:.3g}{calls})"


def _share(value: Any) -> str:
    return spread(value) if isinstance(value, dict) else f"{value:.3f}"


def router_r1(data: Result) -> Iterator[str]:
    """S7's recipe on a tiny transformer: before and after GRPO."""
    for name, found in data["result"]["tables"].items():
        yield (
            f"{name}: {found['queries']} held-out queries, {found['seeds']} seeds, {found['parameters']:,} "
            f"parameters; reward of the best single model {spread(found['best_single']['reward'])}, of the "
            f"oracle of singles {spread(found['oracle_single'])}."
        )
        yield ""
        rows = []
        for key in ("reward", "valid", "quality", "calls"):
            line = found[key]
            seeds = ", ".join(f"{value:+.3f}" for value in line["rise_by_seed"])
            rise = spread(line["rise"], form="+.3f")
            rows.append((key, spread(line["before"]), spread(line["after"]), rise, seeds))
        yield from table(("what", "after the warm start", "after GRPO", "rise", "rise by seed"), rows)
        yield ""
        after, single = found["reward"]["after"], found["best_single"]["reward"]
        beside = "not to be told apart from"
        if after["high"] < single["low"] or after["low"] > single["high"]:
            beside = "below" if after["value"] < single["value"] else "above"
        yield (
            "The paper's claim, better than single models, beside it: after GRPO the reward is "
            f"{beside} that of the best single model, by intervals."
        )
        yield ""


def gates(data: Result) -> Iterator[str]:
    """Every gate on equal terms."""
    result = data["result"]
    setting = result["setting"]
    size, seen = setting["size"], setting["steps"] * setting["batch"] * setting["size"]["positions"]
    yield (
        f"{size['layers']} layers of width {size['width']}, {size['experts']} experts, {seen:,} bytes of "
        f"{result['corpus']}, {setting['seeds']} seeds, paired by seed with the dense model."
    )
    yield from _duration(data)
    yield ""
    groups: dict[str, list[tuple[str, ...]]] = {}
    for row in result["rows"]:
        losses = (spread(row["loss"]), spread(row["against_dense"], form="+.3f"))
        numbers = (spread(row[key], form=".2f") for key in ("max_vio", "dead_share", "change_rate", "speed"))
        share = row["flops"]["value"] if row["flops"] else None
        flops = "-" if share is None else f"{share:.2f}"
        groups.setdefault(group_of(row["sees"], share), []).append((row["gate"], flops, *losses, *numbers))
    heads = ("gate", "FLOPs", "loss, nats a byte", "against dense", "MaxVio", "dead", "change", "speed")
    for group, said in GROUPS.items():
        if group in groups:
            yield from [f"{said[0].upper()}{said[1:]}.", ""] if said else []
            yield from table(heads, groups[group])
            yield ""
    yield "What the columns mean stands in [bench_gates.md](bench_gates.md)."


def _duration(data: Result) -> Iterator[str]:
    """Yield how long training took: by the clock, where one run of the bench trained all cells."""
    run, cells = data["result"].get("run"), len(data["result"]["cells"])
    if run is not None and run["trained"] == cells:
        machine, lasted = f"{data['machine']['cores']} cores", f"{run['wall_s'] / 60:.1f} minutes"
        threads = f"{run['jobs']} at a time with {run['threads']} thread each"
        yield f"All {cells} cells were trained in {lasted} on {machine}, {threads}."
        return
    found, setting = data["result"]["cells"], data["result"]["setting"]
    tokens = setting["steps"] * setting["batch"] * setting["size"]["positions"]
    minutes = sum(tokens / cell["tokens_per_cpu_s"] for cell in found) / 60
    yield f"The training steps of all {cells} cells took about {minutes:.0f} minutes of processor time."


def recruit(data: Result) -> Iterator[str]:
    """S173: teams of experts by skill, merged by vote."""
    result = data["result"]
    yield (
        f"{result['table']}: {result['test']} held-out queries, teams of {result['k']}, the most frequent "
        f"recorded answer; profiles from {result['train']:,} other queries. The paper merges by a model "
        "instead, which nobody can replay; its teams are of models of 7 to 8 billion parameters."
    )
    yield ""
    rows = []
    for name, row in result["rows"].items():
        gain = spread(row["gain"], scale=100, form="+.1f")
        rows.append((name, spread(row["quality"]), gain, f"{row['usd_per_1k']:.2f}", str(row["models"])))
    heads = ("who answers", "quality", "points beyond best single", "usd per 1,000", "models in use")
    yield from table(heads, rows)


SYSTEMS: Writers = {
    "sequential": ("Sequences of calls: Router-R1's task (S7) on recorded outcomes", sequential),
    "router_r1": ("Router-R1's recipe (S7): warm start, then GRPO", router_r1),
    "depth_drllm": ("Depth: Dr.LLM (S12)", depth),
    "depth_chains": ("Depth where questions differ in what they need: Dr.LLM (S12)", chains),
    "depth_mixed": ("Depth: batches that disagree", mixed),
    "duo": ("Module sizes: Duo-LLM (S22)", duo),
    "rewiring": ("Experts at test time: Rewiring (S26)", rewiring),
    "rewiring_tasks": ("Experts at test time: answers that can be checked (S26)", rewiring_tasks),
    "adapters": ("Adapters: Glider (S3), PHATGOOSE, Arrow", adapters),
    "token_gates": ("Adapters: why token gates find so few answers", token_gates),
    "gates": ("Gates of experts on equal terms", gates),
    "gates_all": ("All gates on equal terms", gates),
    "gates_more": ("Further gates on equal terms", gates),
    "gates_dirichlet": ("The gate with a Dirichlet prior, over ten seeds", gates),
    "local": ("One dial over models and depths", local),
    "recruit": ("Teams of experts by skill: Symbolic-MoE (S173)", recruit),
}


def sections(read: Callable[[str], Result], exists: Callable[[str], bool]) -> Iterator[str]:
    """Yield the lines of every system whose result is there."""
    yield from written(SYSTEMS, read, exists)


def written(writers: Writers, read: Callable[[str], Result], exists: Callable[[str], bool]) -> Iterator[str]:
    """Yield the section of every result that is there: where it is from, its picture, what is said of it."""
    for name, (heading, writer) in writers.items():
        if not exists(f"{name}.json"):
            continue
        data = read(name)
        yield f"### {heading}"
        yield ""
        yield f"`{name}.json`, commit {data['commit']}, seed {data['seed']}, `{data['command']}`."
        yield ""
        if exists(f"{name}.png"):
            yield f"![{heading}](../benchmarks/results/{name}.png)"
            yield ""
        yield from writer(data)
        yield ""
