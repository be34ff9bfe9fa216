"""This module is `turnout local`: small models trained here, served at several depths behind one dial.

Everything is made on the spot: two models, a depth router for each, and the outcome table of every compute
budget, recorded by running it. One target then moves both the choice of the model and its depth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from turnout.cli.console import progress_bar, show, show_json, tell
from turnout.cli.demo import ask_once, show_once, snippets, write_study
from turnout.cli.fit import show_fit
from turnout.cli.options import add_goal, count, free_port, goal_of, make_out, port, seed
from turnout.core.budget import Goal
from turnout.core.errors import InputError, MissingExtraError, TableError, sentence
from turnout.core.rng import make_rng
from turnout.core.validation import check_number

if TYPE_CHECKING:
    from turnout.core.outcomes import OutcomeTable
    from turnout.core.progress import Progress
    from turnout.datasets.procedural import Question
    from turnout.evaluation import Report
    from turnout.nn.serving.recipe import Size
    from turnout.policies import Deployment

GOAL = Goal(quality_floor=0.95)
TASKS = ("largest", "sort")
LEVELS = (2, 3, 4)
"""Of all tasks; at each there are so many questions that those recorded can be kept out of the training."""
CHAINS = 4
"""Chains for each question of another task: a chain takes steps one after another, so that depth is worth
something, and one block learns the others."""
USD_PER_PFLOP = 1e-3
"""A rented accelerator of 2 USD an hour that reaches about 0.5 PFLOP/s is of this order."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--once", action="store_true", help="ask the endpoint one question and stop")
    parser.add_argument(
        "--out", type=Path, default=Path("turnout-local"), help="folder (default turnout-local)"
    )
    parser.add_argument(
        "--steps", type=count, default=2400, help="training steps of each model (default 2400)"
    )
    parser.add_argument("--questions", type=count, default=400, help="recorded questions (default 400)")
    parser.add_argument(
        "--usd-per-pflop",
        metavar="USD",
        type=float,
        default=USD_PER_PFLOP,
        help=f"price of 1e15 executed operations (default {USD_PER_PFLOP:g})",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=port, help="port to serve on; 0 takes a free one (default 8100, or the next free one)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of every random step (default 0)")
    add_goal(parser, otherwise="a quality floor of 0.95")


def run(options: argparse.Namespace) -> int:
    """Train, record, fit, evaluate, serve."""
    goal = goal_of(options) or GOAL
    check_number("--usd-per-pflop", options.usd_per_pflop, low=0.0, allow_low=False, allow_high=False)
    _require_torch()
    options.port = free_port(options.host, 0 if options.once else options.port)
    recorded = _recorded(options)
    _check_cut(recorded, options.seed)
    make_out(options.out)
    with progress_bar(quiet=options.json) as progress:
        folders = _make_models(options, progress, {question.prompt for question in recorded})
        table = _record(options, folders, recorded, progress)
    from turnout.training import study, train, train_and_test

    table.save(options.out / "table")
    train_part, test_part = train_and_test(table, seed=options.seed)
    deployment = train(train_part, goal, seed=options.seed)
    report = study(deployment, train_part, test_part, seed=options.seed)
    written = write_study(options.out, deployment, report, command="turnout local")
    written["config"] = _write_config(options, folders, table)
    if not options.json:
        show(f"models      {', '.join(str(folder) for folder in folders.values())}")
        show(f"table       {options.out / 'table'} (every budget was run on {options.questions} questions)")
        show_fit(deployment)
        show()
        show(report.to_text())
        for name in ("picture", "report", "config"):
            show(f"{name:<11} {written[name]}")
    return _serve(options, written, test_part, report, deployment)


def _write_config(options: argparse.Namespace, folders: dict[str, Path], table: OutcomeTable) -> Path:
    """Write the gateway's settings: each model is a provider, and each of its budgets a candidate of it."""
    lines = [
        'deployment = "deployment"',
        f'default_provider = "{next(iter(folders))}"',
        "",
        "[server]",
        f'host = "{options.host}"',
        f"port = {options.port}",
        "",
        "[ledger]",
        'path = "ledger.sqlite"',
    ]
    for name in folders:
        lines += ["", f"[providers.{name}]", 'kind = "local"', f'folder = "{name}"', "max_output_tokens = 16"]
    for candidate in table.candidates:
        lines += ["", f'[candidates."{candidate.name}"]', f'provider = "{candidate.model}"']
    path: Path = options.out / "gateway.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _serve(
    options: argparse.Namespace,
    written: dict[str, Path],
    test: OutcomeTable,
    report: Report,
    deployment: Deployment,
) -> int:
    from turnout.gateway import load_config, running, serve

    config = load_config(written["config"])
    question = test.queries[0].words
    if not options.once:

        def ready(info: Any) -> None:
            if options.json:
                show_json({"base_url": info.base_url})
            else:
                show(snippets(info.base_url, question, note="The models run in this process."))

        serve(config, ready=ready)
        return 0
    with running(config) as info:
        answer = ask_once(info.base_url, question)
    show_once(options, deployment, report, written, question, answer)
    return 0


def _require_torch() -> None:
    try:
        import turnout.nn.serving.local  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            sentence(
                "turnout local trains and runs models in this process",
                allowed="an installation with the extra 'nn'",
                got=str(error),
                do="pip install 'turnout[nn]'",
            )
        ) from error


def _sizes(steps: int) -> dict[str, Size]:
    from turnout.nn.serving.recipe import Size

    return {
        "tiny": Size(width=32, layers=1, steps=steps, efforts={}),
        "small": Size(width=64, layers=6, steps=steps, efforts={"lean": 0.75, "least": 0.5}),
    }


def _make_models(options: argparse.Namespace, progress: Progress, unseen: Set[str]) -> dict[str, Path]:
    """Train every model and its router on questions that are not among the recorded ones."""
    from turnout.datasets.procedural import ALPHABET
    from turnout.nn.serving.recipe import make_model

    folders = {}
    for name, size in _sizes(options.steps).items():
        tell(f"training {name}: {size.layers} blocks of width {size.width}, {size.steps} steps")
        rng = make_rng(options.seed, "local", name)
        folders[name] = make_model(
            options.out / name,
            name=name,
            size=size,
            alphabet=ALPHABET,
            draw=_drawer(rng, unseen),
            held=_pairs(_questions(30, make_rng(options.seed, "local", "held")), unseen),
            seed=options.seed,
            progress=progress,
        )
    return folders


def _drawer(rng: np.random.Generator, unseen: Set[str]) -> Callable[[], Sequence[tuple[str, ...]]]:
    return lambda: _pairs(_questions(8, rng), unseen)


def _questions(each: int, rng: np.random.Generator) -> list[Question]:
    from turnout.datasets.chains import chains
    from turnout.datasets.procedural import questions

    found = [item for task in TASKS for item in questions(task, count=each, levels=LEVELS, rng=rng)]
    # A chain is known by its form; the letters of the name would only slow learning.
    return found + [
        replace(question, prompt=question.prompt.removeprefix("chain:"))
        for question in chains(count=CHAINS * each, levels=LEVELS, rng=rng)
    ]


def _pairs(found: Sequence[Question], unseen: Set[str]) -> list[tuple[str, ...]]:
    """Return what teaches: prompt, answer, and for a chain the letter after each of its steps."""
    from turnout.datasets.chains import walked

    return [
        (question.prompt, question.answer, walked(question) if question.task == "chain" else "")
        for question in found
        if question.prompt not in unseen
    ]


def _recorded(options: argparse.Namespace) -> list[Question]:
    """Return different questions, of all tasks; no model learns from them."""
    rng = make_rng(options.seed, "local", "recorded")
    drawn = list({q.prompt: q for q in _questions(options.questions, rng)}.values())
    return [drawn[i] for i in rng.permutation(len(drawn))[: options.questions]]


def _check_cut(recorded: Sequence[Question], seed: int) -> None:
    """Refuse questions that are too few to be cut, before anything is trained; the texts alone decide it."""
    from turnout.core.candidate import Candidate
    from turnout.core.outcomes import OutcomeTable
    from turnout.core.query import Query
    from turnout.training import train_and_test
    from turnout.training.auto import NUM_FOLDS
    from turnout.training.cross_fit import cut

    count = len(recorded)
    table = OutcomeTable(
        queries=[Query(id=f"q{i}", text=q.prompt, task=q.task) for i, q in enumerate(recorded)],
        candidates=[Candidate(model="any")],
        query_index=np.arange(count),
        candidate_index=np.zeros(count, dtype=np.int64),
        quality=np.zeros(count),
        cost_usd=np.zeros(count),
    )
    try:
        cut(train_and_test(table, seed=seed)[0], NUM_FOLDS, seed=seed)
    except TableError as error:
        raise InputError(
            sentence(
                "--questions is too small",
                allowed="enough to learn from and to hold out",
                got=count,
                do="ask for more",
            )
        ) from error


def _record(
    options: argparse.Namespace, folders: dict[str, Path], recorded: Sequence[Question], progress: Progress
) -> OutcomeTable:
    from turnout.core.query import Query
    from turnout.nn.serving.local import LocalModel
    from turnout.nn.serving.record import Exercise, record

    exercises = [
        Exercise(query=Query(id=f"q{i}", text=q.prompt, task=q.task), reference=q.answer)
        for i, q in enumerate(recorded)
    ]
    models = [LocalModel.load(folder) for folder in folders.values()]
    tell(f"recording {sum(len(m.variants) for m in models)} candidates on {len(exercises)} questions")
    try:
        return record(
            models,
            exercises,
            usd_per_pflop=options.usd_per_pflop,
            max_new_tokens=8,
            progress=progress,
        )
    finally:
        for model in models:
            model.close()
