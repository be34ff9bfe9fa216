"""This module writes the parts of docs/results.md about the systems inside a model and in sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scripts.results_cells import Result, ends, spread
from scripts.results_depth import chains, mixed
from scripts.results_modules import duo
from scripts.results_rewiring import rewiring, rewiring_tasks

Writers = Mapping[str, tuple[str, Callable[[Result], Iterator[str]]]]
"""Result file -> heading and writer."""


def adapters(data: Result) -> Iterator[str]:
    """S3: share of right answers over ten tasks."""
    result = data["result"]
    yield (
        "Share of right answers over ten tasks, one adapter each. *Held-in*: the task's adapter is in the "
        "pool. *Renamed*: so it is, but the question names its task by a word that no adapter has seen. "
        "*Held-out*: it is not."
    )
    yield ""
    yield "| method | held-in | renamed | held-out | held-in minus PHATGOOSE |"
    yield "|---|---|---|---|---|"
    for name, row in result["held_in"].items():
        cells = [
            ends(other["accuracy"], other["low"], other["high"]) if other else "-"
            for other in (row, result["renamed"].get(name), result["held_out"].get(name))
        ]
        lead = ends(row["gain_over_phatgoose"], row["gain_low"], row["gain_high"], form="+.3f")
        yield f"| `{name}` | {' | '.join(cells)} | {lead} |"
    yield ""
    yield from (f"- {claim}" for claim in result["claims"])


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
        heads = ("knob", "executed layers", "router", "random skip", "best fixed skip")
        yield f"| {' | '.join(heads)} | router minus random | router minus best fixed |"
        yield "|---|---|---|---|---|---|---|"
        for row in result[part]:
            cells = [spread(row[name]["quality"]) for name in ("router", "random_skip", "best_fixed_skip")]
            cells += [spread(row[name], form="+.3f") for name in ("gain_over_random", "gain_over_best_fixed")]
            layers = row["router"]["executed_layers"]["mean"]
            yield f"| {row['knob']:+.2f} | {layers:.2f} | {' | '.join(cells)} |"
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
    yield "| batch | executed layers, share | faster, wall | faster, processor | FLOPs, share |"
    yield "|---|---|---|---|---|"
    mixed = ("batch_8_mixed", "batch_8_mixed_without_repeats", "batch_8_mixed_split_into_groups")
    for name in ("batch_1", "batch_8_grouped", *mixed):
        row, share = speed[name], speed["executed_share_alone"]
        yield (
            f"| {name.replace('_', ' ')} | {share:.2f} | {_faster(row, 'wall')} "
            f"| {_faster(row, 'cpu')} | {row['flops_share']:.2f} |"
        )
    for name in mixed:
        if own := result.get("speed_own"):
            yield (
                f"| {name.replace('_', ' ')}, each its own path | - | {_faster(own[name], 'wall')} "
                f"| {_faster(own[name], 'cpu')} | {own[name]['flops_share']:.2f} |"
            )
    claim = result["paper"]
    yield ""
    points, saved = claim["quality_points"], claim["layers_saved_per_example"]
    yield f"The paper: +{points} points and {saved} layers fewer; {claim['setting']}."


def _faster(row: Result, clock: str) -> str:
    """Return how many times faster the median pair was, with the interval of that median."""
    low, high = row[f"speedup_{clock}_interval"]
    return f"{row[f'speedup_{clock}']:.2f} [{low:.2f}, {high:.2f}]"


def sequential(data: Result) -> Iterator[str]:
    """S7 on real tables: one line a price."""
    result = data["result"]
    for table, found in result["tables"].items():
        head = f"{table}, {found['candidates']} candidates, cost in {found['unit']}"
        what = "quality (cost)" if found["unit"] == "usd" else "quality (cost; calls a query)"
        yield f"{head}: {what} on {found['queries']['test']:,} held-out queries."
        yield ""
        methods = list(found["prices"][0]["methods"])
        yield f"| price | {' | '.join(methods)} | learned minus one-shot kNN, utility |"
        yield "|---|" + "---|" * (len(methods) + 1)
        for row in found["prices"]:
            cells = [_point(row["methods"][m], found["unit"]) for m in methods]
            lead = row["learned_minus"]["one-shot kNN"]
            yield f"| {row['price']:.3g} | {' | '.join(cells)} | {spread(lead, form='+.4f')} |"
        yield ""
        verdicts = [
            f"{name} {found['verdict'][name]['better']} better, {found['verdict'][name]['worse']} worse"
            for name in ("one-shot kNN", "one-shot auto", "best single", "cascade")
            if name in found["verdict"]
        ]
        yield f"Learned against (of {len(found['prices'])} prices, by interval): {'; '.join(verdicts)}."
        yield ""
    yield f"The claim beside it: {result['claim']}."
    yield ""
    yield "Share of the optimum in the synthetic task, whose optimum is known:"
    yield ""
    rows = result["synthetic"]
    names = list(rows[0]["share"])
    yield f"| budget, usd | {' | '.join(names)} |"
    yield "|---|" + "---|" * len(names)
    for row in rows:
        yield f"| {row['budget_usd']:.3g} | {' | '.join(_share(row['share'][name]) for name in names)} |"
    yield ""
    taken = [f"{name}: {v['p50_ms']:.3f} ms" for name, v in result["overhead"].items() if isinstance(v, dict)]
    yield f"A step of the loop without model calls, median: {', '.join(taken)}."


def _point(found: Result, unit: str) -> str:
    """Return a method's quality and cost; where tokens stand for money, its calls as well."""
    calls = "" if unit == "usd" else f"; {found['calls']:.2f}"
    return f"{found['quality']['value']:.3f} ({found['cost']['value']:.3g}{calls})"


def _share(value: Any) -> str:
    return spread(value) if isinstance(value, dict) else f"{value:.3f}"


def router_r1(data: Result) -> Iterator[str]:
    """S7's recipe on a tiny transformer: before and after GRPO."""
    for table, found in data["result"]["tables"].items():
        yield (
            f"{table}: {found['queries']} held-out queries, {found['seeds']} seeds, {found['parameters']:,} "
            f"parameters; reward of the best single model {spread(found['best_single']['reward'])}, of the "
            f"oracle of singles {spread(found['oracle_single'])}."
        )
        yield ""
        yield "| | after the warm start | after GRPO | rise | rise by seed |"
        yield "|---|---|---|---|---|"
        for key in ("reward", "valid", "quality", "calls"):
            line = found[key]
            seeds = ", ".join(f"{value:+.3f}" for value in line["rise_by_seed"])
            rise = spread(line["rise"], form="+.3f")
            yield f"| {key} | {spread(line['before'])} | {spread(line['after'])} | {rise} | {seeds} |"
        yield ""


def local(data: Result) -> Iterator[str]:
    """One dial over two models and their depths."""
    result = data["result"]
    yield (
        f"{result['questions']} held-out questions through a real gateway; cost in 1e-9 usd per 1,000. The "
        "lengths of the questions were chosen after another choice had left the larger model behind."
    )
    yield ""
    yield "| a right answer is worth, in mean costs | quality | cost | served |"
    yield "|---|---|---|---|"
    for line in result["dial"]:
        served = ", ".join(f"`{name}` {share:.0%}" for name, share in sorted(line["served"].items()))
        cost = ends(*line["usd_per_1k"], scale=1e9, form=".2f")
        worth = line["worth_in_mean_costs"]
        # The gateway takes no dial of 0; what is sent for it is worth less than any cost here.
        name = f"{worth:g}" if worth else "next to nothing (the header says 1e-15 usd)"
        yield f"| {name} | {ends(*line['quality'])} | {cost} | {served} |"
    for name, line in result["fixed"].items():
        cost = ends(*line["usd_per_1k"], scale=1e9, form=".2f")
        yield f"| always `{name}` | {ends(*line['quality'])} | {cost} | |"
    yield ""
    yield "| requests together | requests a second, median | p50, s | p99, s |"
    yield "|---|---|---|---|"
    for line in result["serving"]["lines"]:
        rate = sorted(line["requests_per_s"])[len(line["requests_per_s"]) // 2]
        p50, p99 = line["latency_p50_s"], line["latency_p99_s"]
        yield f"| {line['together']} | {rate:.0f} | {p50:.3f} | {p99:.3f} |"


def gates(data: Result) -> Iterator[str]:
    """Every gate on equal terms."""
    result = data["result"]
    setting = result["setting"]
    size, seen = setting["size"], setting["steps"] * setting["batch"] * setting["size"]["positions"]
    yield (
        f"{size['layers']} layers of width {size['width']}, {size['experts']} experts, {seen:,} bytes of "
        f"{result['corpus']}, {setting['seeds']} seeds, paired by seed with the dense model."
    )
    yield ""
    heads = ("gate", "loss, nats a byte", "against dense", "MaxVio", "dead", "change", "speed", "FLOPs")
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in result["rows"]:
        mark = "" if row["sees"] in ("token", "past") else " (sees later bytes)"
        numbers = (spread(row[key], form=".2f") for key in ("max_vio", "dead_share", "change_rate", "speed"))
        flops = row["flops"]["value"] if row["flops"] else None
        yield (
            f"| {row['gate']}{mark} | {spread(row['loss'])} | {spread(row['against_dense'], form='+.3f')} "
            f"| {' | '.join(numbers)} | {'-' if flops is None else format(flops, '.2f')} |"
        )
    yield ""
    yield "What the columns mean stands in [bench_gates.md](bench_gates.md)."


def recruit(data: Result) -> Iterator[str]:
    """S173: teams of experts by skill, merged by vote."""
    result = data["result"]
    yield (
        f"{result['table']}: {result['test']} held-out queries, teams of {result['k']}, the most frequent "
        f"recorded answer; profiles from {result['train']:,} other queries. The paper merges by a model "
        "instead, which nobody can replay; its teams are of models of 7 to 8 billion parameters."
    )
    yield ""
    yield "| who answers | quality | points beyond best single | usd per 1,000 | models in use |"
    yield "|---|---|---|---|---|"
    for name, row in result["rows"].items():
        gain = spread(row["gain"], scale=100, form="+.1f")
        cost = f"{row['usd_per_1k']:.2f}"
        yield f"| {name} | {spread(row['quality'])} | {gain} | {cost} | {row['models']} |"


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
    "gates": ("Gates of experts on equal terms", gates),
    "gates_more": ("Ten further gates on equal terms", gates),
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
