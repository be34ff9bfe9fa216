"""This module is `turnout demo`: the whole of turnout on the bundled example, offline and without a key."""

from __future__ import annotations

import argparse
import json
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turnout.cli.console import progress_bar, show, show_json
from turnout.cli.fit import show_fit
from turnout.cli.options import add_goal, free_port, goal_of, make_out, port, seed
from turnout.core.budget import Goal

if TYPE_CHECKING:
    from turnout.core.outcomes import OutcomeTable
    from turnout.evaluation import Report
    from turnout.gateway import Config
    from turnout.policies import Deployment

GOAL = Goal(quality_floor=0.95)
"""The demo's dial: 95 % of the best single model's quality, for as little money as that takes."""

_NOTE = "Answers are replays of recorded ones."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--once", action="store_true", help="ask the endpoint one question and stop")
    parser.add_argument("--table", default="reason18", help="table with recorded answers (default reason18)")
    parser.add_argument(
        "--out", type=Path, default=Path("turnout-demo"), help="folder (default turnout-demo)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=port, help="port to serve on; 0 takes a free one (default 8100, or the next free one)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of every random step (default 0)")
    add_goal(parser, otherwise="a quality floor of 0.95")


def run(options: argparse.Namespace) -> int:
    """Fit, evaluate, draw, serve."""
    goal = goal_of(options) or GOAL
    make_out(options.out)
    # Fitting takes a while; a port that is taken should not wait for it.
    options.port = free_port(options.host, 0 if options.once else options.port)
    deployment, report, test = _study(options, goal)
    written = write_study(options.out, deployment, report, command="turnout demo")
    if not options.json:
        _show_study(options, deployment, report, written)
    config = _config(options, written["deployment"])
    if options.once:
        return _once(options, config, deployment, report, test, written)
    return _serve(options, config, test)


def _study(options: argparse.Namespace, goal: Goal) -> tuple[Deployment, Report, OutcomeTable]:
    from turnout.datasets import load
    from turnout.gateway.providers.recording import recording_of
    from turnout.training import study, train, train_and_test

    table = load(options.table)
    # Nor should a table that cannot answer wait for it.
    recording_of(table, where=options.table)
    train_part, test_part = train_and_test(table, seed=options.seed)
    with progress_bar(quiet=options.json) as progress:
        deployment = train(train_part, goal, seed=options.seed, progress=progress)
        progress("evaluate", 4, 5)
        report = study(deployment, train_part, test_part, seed=options.seed)
    return deployment, report, test_part


def write_study(out: Path, deployment: Deployment, report: Report, *, command: str) -> dict[str, Path]:
    """Write a deployment, its picture, page and numbers into a folder; return the paths by what they are."""
    from turnout.core.artifact import save

    paths = {
        "deployment": save(deployment, out / "deployment", about={"command": command}),
        "picture": out / "curve.png",
        "report": out / "report.html",
        "numbers": out / "report.json",
    }
    report.to_png(paths["picture"])
    report.to_html(paths["report"])
    paths["numbers"].write_text(report.to_json(), encoding="utf-8")
    return paths


def _config(options: argparse.Namespace, deployment: Path) -> Config:
    from turnout.datasets.loading import find_table
    from turnout.gateway import demo_config

    return demo_config(
        deployment,
        find_table(options.table),
        host=options.host,
        port=options.port,
        ledger=options.out / "ledger.sqlite",
    )


def _show_study(
    options: argparse.Namespace, deployment: Deployment, report: Report, written: dict[str, Path]
) -> None:
    show(f"table       {options.table} (bundled; recorded answers and costs)")
    show_fit(deployment)
    show()
    show(report.to_text())
    show(_in_short(report))
    show(f"picture     {written['picture']}")
    show(f"report      {written['report']}")


def _in_short(report: Report) -> str:
    """Return the deployment against the best single model in one line of held-out numbers."""
    router, single = report["router"], report["best single"]
    quality, best = router.quality.value, single.quality.value
    if not quality or not best or router.usd_per_1k is None or single.usd_per_1k is None:
        return ""
    usd, best_usd = router.usd_per_1k.value or 0.0, single.usd_per_1k.value or 0.0
    saved = 1 - usd / best_usd if best_usd else 0.0
    return f"in short    {quality / best:.1%} of the best single model's quality for {saved:.0%} less money"


def _once(
    options: argparse.Namespace,
    config: Config,
    deployment: Deployment,
    report: Report,
    test: OutcomeTable,
    written: dict[str, Path],
) -> int:
    from turnout.gateway import running

    with running(config) as ready:
        answer = ask_once(ready.base_url, _question(test))
    show_once(options, deployment, report, written, _question(test), answer)
    return 0


def show_once(
    options: argparse.Namespace,
    deployment: Deployment,
    report: Report,
    written: dict[str, Path],
    question: str,
    answer: dict[str, Any],
) -> None:
    """Show the one answer of `--once`, with everything that was made where JSON is wanted."""
    if options.json:
        paths = {name: str(path) for name, path in written.items()}
        show_json({**deployment.certificate, "report": report.to_dict(), "answer": answer, "files": paths})
        return
    note = ", a replay" if answer["replay"] else ""
    show()
    show(f"question    {question if len(question) <= 100 else question[:100] + '...'}")
    show(f"answer      {answer['content']}")
    show(f"served by   {answer['model']}{note}; decided in {answer['decision_us']} us")


def ask_once(base_url: str, question: str) -> dict[str, Any]:
    """Ask a running endpoint one question; return the answer and what its headers say."""
    body = json.dumps({"model": "turnout/auto", "messages": [{"role": "user", "content": question}]})
    request = urllib.request.Request(
        f"{base_url}/chat/completions", body.encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        data = json.loads(response.read())
        headers = {name.lower(): value for name, value in response.headers.items()}
    return {
        "content": data["choices"][0]["message"]["content"],
        "model": headers.get("x-turnout-model"),
        "reason": headers.get("x-turnout-reason"),
        "decision_us": headers.get("x-turnout-decision-us"),
        "decision_id": headers.get("x-turnout-decision-id"),
        "replay": headers.get("x-turnout-replay"),
    }


def _serve(options: argparse.Namespace, config: Config, test: OutcomeTable) -> int:
    from turnout.gateway import serve

    def ready(info: Any) -> None:
        if options.json:
            show_json({"base_url": info.base_url})
        else:
            show(snippets(info.base_url, _question(test), note=_NOTE))

    serve(config, ready=ready)
    return 0


def _question(test: OutcomeTable) -> str:
    """Return a short held-out question whose answer is recorded."""
    texts = [query.text for query in test.queries if query.text and "'" not in query.text]
    return min(texts, key=lambda text: (abs(len(text) - 120), text))


def snippets(base_url: str, question: str, *, note: str) -> str:
    """Return how to ask an endpoint, ready to paste."""
    body = {"model": "turnout/auto", "messages": [{"role": "user", "content": question}]}
    return f"""
turnout serves {base_url} (Ctrl-C stops). {note}
Who was asked, why, and what it cost: {base_url.removesuffix("/v1")}/ui

curl -i {base_url}/chat/completions \\
  -H 'content-type: application/json' \\
  -d '{json.dumps(body)}'

from openai import OpenAI

client = OpenAI(base_url="{base_url}", api_key="none")
answer = client.chat.completions.create(
    model="turnout/auto",
    messages=[{{"role": "user", "content": {json.dumps(question)}}}],
)
print(answer.model, answer.choices[0].message.content)
"""
