"""This module writes the parts of docs/results.md that judge routers: unseen tables, time and size, risk."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.unseen_regimes import REPORT
from scripts.results_cells import Result, commits, saving, spread
from scripts.results_systems import Writers, written

RIVALS = {"best_single": "best single", "knn": "kNN", "group_mean": "group mean (told)"}


def unseen(data: Result) -> Iterator[str]:
    """`auto` on tables that it had never seen."""
    result = data["result"]
    found = result["summary"]
    yield (
        f"{len(result['regimes'])} tables of kinds that no rule of `auto` was chosen on, each "
        "drawn once: worlds on real "
        "texts with latent skills, and pieces of recorded tables (some candidates, some queries, "
        "some cells). "
        f"{result['comparisons']} comparisons of one family, each interval of confidence "
        f"{result['confidence']:.2%} "
        "(Bonferroni). *True*: by the chances that the worlds were drawn from, free of noise; "
        "their mean over the "
        "tables has a 95 % interval over the tables."
    )
    yield ""
    yield "| rival | tables | significantly below it | significantly above | mean true difference, points |"
    yield "|---|---|---|---|---|"
    for rival, label in RIVALS.items():
        line = found[rival]
        below = ", ".join(line["below"]) or "none"
        mean = spread(line["mean"], scale=100, form="+.2f")
        yield f"| {label} | {line['regimes']} | {below} | {len(line['above'])} | {mean} |"
    yield ""
    if note := result.get("note"):
        yield f"Note: {note}."
        yield ""
    if missing := [regime.name for regime in REPORT if regime.name not in result["regimes"]]:
        yield f"Of the {len(REPORT)} kinds these have not run: {'; '.join(missing)}."
        yield ""
    if named := [cell for cell in result["regimes"].values() if "commit" in cell]:
        yield f"Commits of the rows: {commits(named)}."
        yield ""
    promises = found["promises"]
    yield (
        f"The guard lets the router serve on {found['open']} of them. Of {promises['made']} "
        "promises of equal quality at "
        f"95 % confidence that a router was to keep, {promises['missed']} were truly missed; the "
        "worst lies "
        f"{100 * promises['worst']:+.2f} points from the best single model."
    )
    yield ""
    yield (
        "| table | training x candidates | filled | beyond best single | beyond kNN | told: "
        "beyond group mean "
        "| diverted | saving at equal quality, % | kNN's | fit, processor s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for name, cell in result["regimes"].items():
        beyond = [
            spread(cell["against"][rival], scale=100, form="+.1f") if rival in cell["against"] else "-"
            for rival in RIVALS
        ]
        filled = cell["rows"] / (cell["train"] * cell["candidates"])
        savings = cell.get("money", {}).get("saving", {})
        saved = [saving(savings.get(who)) for who in ("router", "knn")]
        yield (
            f"| {name} | {cell['train']:,} x {cell['candidates']} | {filled:.0%} | {' | '.join(beyond)} "
            f"| {cell['diverted']:.0%} | {' | '.join(saved)} | {cell['fit_cpu_s']:.0f} |"
        )


def numbers(data: Result) -> Iterator[str]:
    """What each router owes in time and size."""
    result = data["result"]
    bounds = result["bounds"]
    yield (
        f"{result['queries']:,} queries x {result['candidates']} candidates, in seconds and "
        "milliseconds of the processor, "
        "so that what ran beside does not count (a decision: the median of the quietest window). "
        f"Owed: fit under {bounds['fit_cpu_s']:.0f} s (`auto` "
        f"{bounds['auto_fit_cpu_s']:.0f}), a decision under {bounds['p50_ms']:.0f} ms (networks "
        f"{bounds['p50_neural_ms']:.0f}), an artifact under {bounds['artifact_mb']:.0f} MB, a "
        "newcomer from 50 probe rows "
        f"under {bounds['add_cpu_s']:.0f} s."
    )
    yield ""
    broken = result["broken"]
    owed = "; ".join(f"`{name}`: {', '.join(keys)}" for name, keys in broken.items())
    rows = commits(result["routers"].values())
    yield f"Bounds that do not hold: {owed or 'none'}. Commits of the rows: {rows}."
    yield ""
    yield "| router | fit, s | decision p50, ms | artifact, MB | newcomer, s | owes |"
    yield "|---|---|---|---|---|---|"
    for name, cell in result["routers"].items():
        if "error" in cell:
            yield f"| `{name}` | could not run: {cell['error']} | | | | |"
            continue
        added = "refused" if cell["add_cpu_s"] is None else f"{cell['add_cpu_s']:.3f}"
        owes = ", ".join(result["broken"].get(name, [])) or "-"
        yield (
            f"| `{name}` | {cell['fit_cpu_s']:.1f} | {cell['p50_ms']:.2f} | "
            f"{cell['artifact_mb']:.1f} | {added} | {owes} |"
        )


def safety(data: Result) -> Iterator[str]:
    """Where harmful prompts go, and whether a planted preference is found."""
    result = data["result"]
    yield (
        "A screen learned on half of xstest keeps prompts of its other half from candidates "
        "marked unsafe, at a stated "
        f"false-alarm rate of {result['xstest']['stated']:.0%} (means over cuts, deviation behind)."
    )
    yield ""
    yield "| screen by | false alarms | missed |"
    yield "|---|---|---|"
    for name in ("KNNRouter", "RidgeRouter"):
        cell = result["xstest"][name]
        alarms = f"{cell['false_alarm']:.1%} ({cell['false_alarm_deviation']:.1%})"
        yield f"| `{name}` | {alarms} | {cell['miss']:.1%} ({cell['miss_deviation']:.1%}) |"
    yield ""
    least = min(result["xstest"][name]["miss"] for name in ("KNNRouter", "RidgeRouter"))
    yield (
        f"Neither is a screen to rely on: even the better one lets {least:.0%} of the harmful prompts "
        "through. They show what a router learns of harm from some hundred texts; put one made for harm "
        "in front."
    )
    yield ""
    planted = result["planted"]["poisoned"]
    yield (
        f"A preference planted in {result['planted']['num_poisoned']} of "
        f"{result['planted']['num_train']:,} training prompts "
        f"by one word: the audit's rank of that word among all is {planted['rank']}. Share of "
        "prompts that go to the favoured "
        "candidate without and with the word:"
    )
    yield ""
    yield "| router | clean training | poisoned training |"
    yield "|---|---|---|"
    for name in ("KNNRouter", "RidgeRouter"):
        pairs = [result["planted"][kind][name] for kind in ("clean", "poisoned")]
        cells = " | ".join(f"{pair['before']:.1%} to {pair['after']:.1%}" for pair in pairs)
        yield f"| `{name}` | {cells} |"


def signals(data: Result) -> Iterator[str]:
    """What `auto` gains from routers that read signals, and what they cost where there is nothing to gain."""
    result = data["result"]
    yield (
        "Development worlds, learned with routers that read the text alone, with two more that read signals "
        "(the default), and with text and signals joined in one embedder. *Plain*: nothing hangs on signals; "
        "*rule*: one property of the text decides who is good. Differences to text alone in points, by true "
        "chances, with 95 % intervals over the worlds; below: worlds where a choice is worth less by half a "
        "point or more."
    )
    yield ""
    yield (
        "| worlds | learned with | beyond text alone | worst | diverting | below best single | below kNN "
        "| fit, share of text alone |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for kind, found in result["summary"].items():
        for arm in ("text", "signals", "joined"):
            gain = spread(found.get(arm), scale=100, form="+.2f")
            worst = f"{100 * found[arm]['worst']:+.2f}" if arm in found else "-"
            below = f"{found['below_best_single'][arm]} | {found['below_knn'][arm]}"
            fit = f"{found['fit_cpu_s'][arm] / found['fit_cpu_s']['text']:.2f}"
            yield (
                f"| {kind}, {found['worlds']} | {arm} | {gain} | {worst} | {found['diverting'][arm]} "
                f"| {below} | {fit} |"
            )
    yield ""
    arms = ("best_single", "knn", "text", "signals", "joined")
    yield f"| rule / texts | {' | '.join(arms)} | oracle |"
    yield "|---" * (len(arms) + 2) + "|"
    for name, cell in result["worlds"].items():
        if name.startswith("rule / "):
            worth = " | ".join(f"{cell['quality'][arm]:.3f}" for arm in arms)
            yield f"| {name.removeprefix('rule / ')} | {worth} | {cell['oracle']:.3f} |"


SECTIONS: Writers = {
    "auto_unseen": ("auto on tables that it has never seen", unseen),
    "signals": ("Signals beside the text", signals),
    "numbers": ("Time and size", numbers),
    "safety": ("Where harmful prompts go (S53)", safety),
}


def sections(read: Callable[[str], Result], exists: Callable[[str], bool]) -> Iterator[str]:
    """Yield the lines of every result that is there."""
    yield from written(SECTIONS, read, exists)
