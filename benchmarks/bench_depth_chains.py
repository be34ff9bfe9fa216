"""This module measures Dr.LLM's routers on questions of which some truly need more depth than others.

A small Llama learns chains of one to five steps, one step after another; a chain of five needs more blocks
than one of two. It is trained until it answers a stated share of the training questions; the run stops where
it does not. Then, as in `bench_depth_drllm`, paths are searched for training questions and routers of several
seeds are trained on them, on each question's own path as the paper has it and on few paths that many share.
How many paths are shared, and the knob, are chosen on questions for that choice: the fewest executed layers
that keep 95 % of the dense model's quality there. The best fixed skip, of which every one is tried, keeps
as many blocks as the same rule asks for. Questions that had no part in this judge them all, and `regret` says
how far routers are from the best of all paths. All of it for several bases; what each came to is kept in
`--folder`, so that a run goes on where it was stopped, and `--base N` measures one alone. The weights stay
there too: `--speed` reads them, and times decoding under the routers of shared paths beside the dense model.
`--quick` shrinks everything.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import chains_picture, chains_speed, record
from benchmarks import depth_judging as judging
from benchmarks.chains_speed import Pairs
from benchmarks.chains_tables import Judged, gains, levels, load, regrets, rows, save
from benchmarks.depth_judging import SEED, TOKENIZER, Answers, as_batch, judge, show
from turnout.core.errors import sentence
from turnout.core.rng import make_rng
from turnout.datasets.chains import chains, walked
from turnout.datasets.procedural import Question
from turnout.nn.depth import RoutedDepth, right_answers
from turnout.nn.depth.drllm.labels import Labels, find_labels
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.depth.drllm.search import SearchRule
from turnout.nn.depth.drllm.sharing import share_labels
from turnout.nn.depth.dropping import train_dropping
from turnout.nn.depth.duo import exhaustive
from turnout.nn.depth.oracle import answer_problem
from turnout.nn.depth.rewards import take_questions
from turnout.nn.tiny import Batch, answer_batch, tiny_llama

DROP = 0.1


@dataclass(frozen=True)
class Size(judging.Size):
    """How much of everything."""

    levels: tuple[int, ...] = (2, 3, 4, 5)
    """Steps of the questions that are searched and judged; the base also learns chains of one step."""
    layers: int = 7
    steps: int = 1600
    rounds: int = 4
    """Times that a base is trained for `steps`, at most."""
    bar: float = 0.95
    """Share of the training questions that a base has to answer, every step right."""
    batch: int = 48
    questions: tuple[int, int, int] = (600, 400, 500)
    """Of the test, of the choice, of the training."""
    oracle_questions: int = 60
    """Questions of the test on which every path is tried."""
    simulations: int = 60
    shared: tuple[int, ...] = (3, 5)
    """Numbers of shared paths from which one is chosen."""
    floor: float = 0.95
    """Share of the dense model's quality that is to be kept."""
    bases: int = 3
    knobs: tuple[float, ...] = (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3)


QUICK = Size(
    levels=(1, 2), layers=3, width=32, steps=250, rounds=4, bar=0.3, batch=32, questions=(24, 24, 40),
    oracle_questions=6, simulations=6, shared=(2, 3), pool=4, seeds=2, bases=1, epochs=2, knobs=(0.0, 0.2),
)  # fmt: skip


def draw_chains(*, count: int, levels: Sequence[int], rng: np.random.Generator) -> list[Question]:
    """Return chains without the name of their task, since there is no other and its letters slow learning."""
    drawn = chains(count=count, levels=levels, rng=rng)
    return [replace(question, prompt=question.prompt.removeprefix("chain:")) for question in drawn]


def split_questions(size: Size) -> dict[str, list[Question]]:
    """Return the questions of the test, of the choice and of the training; no prompt comes twice."""
    rng, count = make_rng(SEED, "chains", "questions"), sum(size.questions)
    drawn = draw_chains(count=3 * count, levels=size.levels, rng=rng)
    different = list({question.prompt: question for question in drawn}.values())
    order = rng.permutation(len(different))[:count]
    ends = np.cumsum(size.questions)
    parts = np.split(order, ends[:-1])
    return {
        name: [different[i] for i in part]
        for name, part in zip(("test", "choice", "train"), parts, strict=True)
    }


def taught(asked: Sequence[Question]) -> Batch:
    """Return questions as a batch that teaches, at every step of a chain, the letter it has come to.

    What precedes a step is a shorter chain, and the letter is its answer. The base learns from these, and a
    path is a label only where every step is right, since one answer in ten is right by chance. A question of
    the test is judged by what follows its `=`.
    """
    return answer_batch(
        TOKENIZER, [(question.prompt, question.answer, walked(question)) for question in asked]
    )


def train_base(size: Size, seed: int, taboo: set[str], lessons: Batch) -> tuple[RoutedDepth, dict[str, Any]]:
    """Return a wrapped Llama that has learned the task, blocks dropped by chance, and how long it took.

    Raises `RuntimeError` where it answers too few of the training questions after the last round.
    """
    model = tiny_llama(vocab_size=len(TOKENIZER), width=size.width, layers=size.layers, seed=seed)
    routed = RoutedDepth(model=model)
    rng = make_rng(seed, "chains", "base")

    def draw() -> Batch:
        asked = draw_chains(count=size.batch, levels=range(1, max(size.levels) + 1), rng=rng)
        return taught([question for question in asked if question.prompt not in taboo] or asked[:1])

    right: list[float] = []
    for _ in range(size.rounds):
        train_dropping(routed, draw, drop=DROP, rng=rng, steps=size.steps, lr=3e-3, progress=show)
        right.append(float(judge(routed, lessons)[0].mean()))
        if right[-1] >= size.bar:
            return routed, {"seed": seed, "steps": len(right) * size.steps, "right_after_each_round": right}
    raise RuntimeError(
        sentence(
            f"base {seed} did not learn its training questions",
            allowed=f"at least {size.bar:.0%} right after {size.rounds} rounds of {size.steps} steps",
            got=[f"{share:.0%}" for share in right],
            do="raise `rounds` or `steps`",
        )
    )


def measure_base(
    size: Size, seed: int, asked: Mapping[str, list[Question]], weights: Path | None = None
) -> Judged:
    """Return what one base and its routers came to; `weights` is where they are kept."""
    splits = {name: as_batch(group) for name, group in asked.items()}
    lessons = {name: taught(group) for name, group in asked.items()}
    taboo = {question.prompt for name in ("test", "choice") for question in asked[name]}
    routed, notes = train_base(size, seed, taboo, lessons["train"])
    dense = {name: judge(routed, splits[name]) for name in splits}
    labels = search(routed, size, lessons)
    found = Judged(answers={"dense": dense["test"]}, notes={"base": notes})
    found.answers["labels"] = judge(routed, splits["test"], labels["test"].counts_QL)
    least = size.floor * dense["choice"][0].mean()
    patterns = judge_fixed(routed, size, splits, least, found)
    decisions = {"dense": [np.ones(size.layers, dtype=np.int64)]}
    decisions["labels"] = [labels["test"].counts_QL.numpy()]
    decisions["fixed"] = [np.array(patterns[found.notes["fixed"]["kept"]].counts)]
    own, found.notes["own"] = judging.train_routers(routed, size, lessons["train"], labels["train"])
    kinds = {"own": {0: own}, "shared": {}}
    found.notes["shared"] = {}
    for paths in size.shared:
        shared = share_labels(
            routed, lessons["train"], labels["train"], paths=paths, pool=size.pool, seed=SEED, progress=show
        )
        kinds["shared"][paths], found.notes["shared"][str(paths)] = judging.train_routers(
            routed, size, lessons["train"], shared
        )
    chosen = {
        kind: judge_kind(routed, size, splits, kind, routers, least, found) for kind, routers in kinds.items()
    }
    for kind, routers in chosen.items():
        decisions[kind] = [decided(routed, router, splits["test"]) for router in routers]
    if weights is not None:
        chains_speed.keep(routed, chosen, weights)
    few = range(min(size.oracle_questions, len(asked["test"])))
    problem = answer_problem(routed, take_questions(lessons["test"], few))
    oracle = exhaustive(problem, budgets=range(2 * size.layers + 1), max_layers=size.layers)
    for name, choices in decisions.items():
        each = [choice_QL if choice_QL.ndim == 1 else choice_QL[: len(few)] for choice_QL in choices]
        found.spent[name] = [
            (problem.of_items(choice), np.broadcast_to(problem.spent(choice), len(few))) for choice in each
        ]
    found.oracle = oracle
    found.notes["levels"] = levels(asked["test"], found.answers)
    return found


def search(routed: RoutedDepth, size: Size, lessons: Mapping[str, Batch]) -> dict[str, Labels]:
    """Return the label paths of the training questions, and of the test's, which nobody learns from."""
    rule = SearchRule(simulations=size.simulations, is_exhausting=True)
    return {
        name: find_labels(routed, lessons[name], rule=rule, seed=SEED, progress=show)
        for name in ("train", "test")
    }


def judge_fixed(
    routed: RoutedDepth, size: Size, splits: Mapping[str, Batch], least: float, found: Judged
) -> dict[int, Any]:
    """Judge random and fixed skips at every number of blocks; return the patterns."""
    patterns, kept = {}, size.layers
    for number in range(size.layers, -1, -1):
        patterns[number] = judging.best_fixed(routed, splits["train"], number)
        found.answers[f"fixed {number}"] = judging.with_router(routed, patterns[number], splits["test"])
        if judging.with_router(routed, patterns[number], splits["choice"])[0].mean() >= least:
            kept = number
        if 0 < number < size.layers:
            found.answers[f"random {number}"] = judging.at_random(routed, number, size.seeds, splits["test"])
    found.answers["fixed"] = found.answers[f"fixed {kept}"]
    found.notes["fixed"] = {
        "kept": kept,
        "patterns": {str(number): list(pattern.counts) for number, pattern in patterns.items()},
    }
    return patterns


def judge_kind(
    routed: RoutedDepth,
    size: Size,
    splits: Mapping[str, Batch],
    kind: str,
    routers: Mapping[int, Sequence[DrLLMRouter]],
    least: float,
    found: Judged,
) -> Sequence[DrLLMRouter]:
    """Choose shared paths and knob, judge every knob on the test; return the chosen routers at that knob."""
    tried = {
        (paths, knob): judging.of_all(judging.at_knob(routed, group, knob, splits["choice"]))
        for paths, group in routers.items()
        for knob in size.knobs
    }
    paths, knob = choose(tried, least)
    tested = {other: judging.at_knob(routed, routers[paths], other, splits["test"]) for other in size.knobs}
    for other, each in tested.items():
        found.answers[f"{kind} {other:+.2f}"] = judging.of_all(each)
    found.answers[kind] = judging.of_all(tested[knob])
    kept = min(judging.at_least(found.answers[kind][1].mean()), size.layers)
    found.answers[f"{kind}, fixed"] = found.answers[f"fixed {kept}"]
    found.notes[f"{kind}_chosen"] = {
        "paths": paths,
        "knob": knob,
        "by_seed": [float(pair[0].mean()) for pair in tested[knob]],
        "choice": {
            f"{count} {at:+.2f}": [float(pair[0].mean()), float(pair[1].mean())]
            for (count, at), pair in tried.items()
        },
    }
    for router in routers[paths]:
        router.set_knob(knob)
    return routers[paths]


def decided(routed: RoutedDepth, router: DrLLMRouter, batch: Batch) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return counts_QL, the depths that a router decides."""
    routed.set_router(router)
    counts_QL: np.ndarray[Any, np.dtype[np.int64]] = right_answers(routed, batch)[1].numpy()
    routed.set_router(None)
    return counts_QL


def choose(tried: Mapping[tuple[int, float], Answers], least: float) -> tuple[int, float]:
    """Return the setting of fewest calls among those of at least that quality, else the one of the best."""
    good = [key for key, pair in tried.items() if pair[0].mean() >= least]
    if good:
        return min(good, key=lambda key: tried[key][1].mean())
    return max(tried, key=lambda key: tried[key][0].mean())


def measured(size: Size, seed: int, folder: Path | None) -> Judged:
    """Return what one base came to, from the folder if it is there."""
    path = None if folder is None else folder / f"{seed}.json"
    if path is not None and path.is_file():
        return load(path)
    weights = None if folder is None else folder / str(seed)
    found = measure_base(size, seed, split_questions(size), weights)
    if path is not None:
        save(found, path)
    chosen = {kind: found.notes[f"{kind}_chosen"] for kind in ("own", "shared")}
    print(seed, found.notes["base"], chosen, flush=True)
    return found


def timed(size: Size, seed: int, folder: Path, pairs: Pairs) -> None:
    """Measure the time of a base that is in the folder, and add it to its cell."""
    found = measured(size, seed, folder)
    right = found.notes[f"{chains_speed.KIND}_chosen"]["by_seed"]
    asked = split_questions(size)
    found.notes["speed"] = chains_speed.measure(folder / str(seed), asked, right, pairs)
    save(found, folder / f"{seed}.json")
    for line in found.notes["speed"]["routers"]:
        ratios = {name: part["speedup_wall"] for name, part in line.items() if name.startswith("batch")}
        print(seed, line["router"], line["knob"], ratios, line["router_share_of_time"], flush=True)


def measure(size: Size, folder: Path | None = None) -> dict[str, Any]:
    """Return everything that is written."""
    found = [measured(size, seed, folder) for seed in range(size.bases)]
    return {
        "size": {**asdict(size), "drop": DROP},
        "rows": rows(found),
        "gains": gains(found),
        "regret": regrets(found),
        "bases": [{"rows": rows([one]), "gains": gains([one]), **one.notes} for one in found],
    }


def main(arguments: list[str]) -> None:
    """Write `depth_chains.json` and `depth_chains.png`."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--bases", type=int, default=Size.bases)
    parser.add_argument("--base", type=int, help="measure this one alone, into the folder")
    parser.add_argument("--speed", action="store_true", help="time what the folder holds")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else Size(bases=options.bases)
    if (options.speed or options.base is not None) and options.folder is None:
        parser.error("--speed and --base need --folder")
    if options.speed:
        pairs = chains_speed.QUICK if options.quick else Pairs()
        for seed in range(size.bases) if options.base is None else [options.base]:
            timed(size, seed, options.folder, pairs)
    if options.base is not None:
        measured(size, options.base, options.folder)
        return
    result = measure(size, options.folder)
    if options.quick:
        print(result["gains"])
        return
    print(record.write("depth_chains", result, seed=SEED).name)
    print(chains_picture.draw(result, record.RESULTS / "depth_chains.png").name)


if __name__ == "__main__":
    main(sys.argv[1:])
