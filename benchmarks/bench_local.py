"""This module measures one dial that moves the choice of a model and its depth, through a real gateway.

`turnout local` trains two models and a depth router, records every compute budget and fits a deployment. Then
a gateway serves both models from this process, and held-out questions are asked at several settings of the
dial. Beside it stands every fixed budget on the same questions. Four minutes on one core; `--quick` is small
and writes nothing.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from benchmarks import local_picture, record
from turnout.core.outcomes import OutcomeTable
from turnout.core.rng import make_rng
from turnout.datasets import load
from turnout.gateway import load_config, running
from turnout.nn.serving import local  # noqa: F401 (before the gateway, whose start is timed)
from turnout.training import train_and_test

SEED = 0
DIAL = "x-turnout-usd-per-quality"
# What one more right answer is worth, in mean costs of the dearest budget.
WORTH = (0.0, 0.5, 1.0, 2.0, 4.0, 16.0, 256.0)
RESAMPLES = 1000


def make(out: Path, *, steps: int, questions: int) -> None:
    """Run the command a newcomer runs."""
    command = [sys.executable, "-m", "turnout", "local", "--once", "--json", "--out", str(out)]
    command += ["--steps", str(steps), "--questions", str(questions), "--seed", str(SEED)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


async def ask_all(
    url: str, texts: Sequence[str], *, model: str, headers: dict[str, str], together: int
) -> tuple[list[tuple[str, str, float]], float]:
    """Return (answer, served, seconds) of every text, at most `together` at a time, and the whole time."""
    gate = asyncio.Semaphore(together)

    async def one(session: aiohttp.ClientSession, text: str) -> tuple[str, str, float]:
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        async with gate:
            began_s = time.perf_counter()
            async with session.post(f"{url}/chat/completions", json=body, headers=headers) as response:
                found = json.loads(await response.read())
                if response.status != 200:
                    raise RuntimeError(f"{response.status}: {found}")
                answer = found["choices"][0]["message"]["content"]
                served = response.headers["x-turnout-model"]
            return answer, served, time.perf_counter() - began_s

    began_s = time.perf_counter()
    async with aiohttp.ClientSession() as session:
        answers = await asyncio.gather(*(one(session, text) for text in texts))
    return list(answers), time.perf_counter() - began_s


def dial_lines(url: str, test: OutcomeTable, worth_usd: float) -> list[dict[str, Any]]:
    """Return one line a setting of the dial: what was served, how good it was, what it cost."""
    texts = [query.words for query in test.queries]
    cost_QM = test.cost_usd_QM
    lines = []
    for worth in WORTH:
        headers = {DIAL: repr(worth * worth_usd)} if worth else {DIAL: "1e-15"}
        answers, _ = asyncio.run(ask_all(url, texts, model="turnout/auto", headers=headers, together=16))
        served = [name for _, name, _ in answers]
        right_Q = np.array(
            [
                answer.strip() == wanted
                for (answer, _, _), wanted in zip(answers, test.references, strict=True)
            ]
        )
        usd_Q = np.array([cost_QM[i, test.names.index(name)] for i, name in enumerate(served)])
        line = {
            "worth_in_mean_costs": worth,
            "quality": _interval(right_Q.astype(float)),
            "usd_per_1k": _interval(usd_Q * 1000),
            "served": {name: count / len(texts) for name, count in Counter(served).items()},
        }
        lines.append(line)
        print(f"  worth {worth:g}: {line['quality']} {line['usd_per_1k']} {line['served']}", flush=True)
    return lines


def fixed_lines(test: OutcomeTable) -> dict[str, Any]:
    """Return quality and cost of every fixed budget, and of the oracle, on the recorded questions."""
    quality_QM, cost_QM = test.quality_QM, test.cost_usd_QM
    lines: dict[str, Any] = {
        name: {"quality": _interval(quality_QM[:, m]), "usd_per_1k": _interval(cost_QM[:, m] * 1000)}
        for m, name in enumerate(test.names)
    }
    best_Q = quality_QM.max(axis=1, keepdims=True)
    oracle_Q = np.where(quality_QM == best_Q, cost_QM, np.inf).argmin(axis=1)
    rows_Q = np.arange(len(oracle_Q))
    lines["oracle"] = {
        "quality": _interval(quality_QM[rows_Q, oracle_Q]),
        "usd_per_1k": _interval(cost_QM[rows_Q, oracle_Q] * 1000),
    }
    lines["random"] = {
        "quality": _interval(quality_QM.mean(axis=1)),
        "usd_per_1k": _interval(cost_QM.mean(axis=1) * 1000),
    }
    return lines


def serving_lines(url: str, test: OutcomeTable, model: str) -> list[dict[str, Any]]:
    """Return requests a second of one model, alone and together: what batching of waiting requests gives."""
    texts = [query.words for query in test.queries][:64]
    lines = []
    for together in (1, 4, 16):
        runs = [
            asyncio.run(ask_all(url, texts, model=model, headers={}, together=together)) for _ in range(3)
        ]
        seconds = [run[1] for run in runs]
        latency = np.concatenate([[s for _, _, s in run[0]] for run in runs])
        lines.append(
            {
                "together": together,
                "requests_per_s": [len(texts) / s for s in seconds],
                "latency_p50_s": float(np.quantile(latency, 0.5)),
                "latency_p99_s": float(np.quantile(latency, 0.99)),
            }
        )
        print(f"  {together} together: {np.median(lines[-1]['requests_per_s']):.0f} requests/s", flush=True)
    return lines


def _interval(value_Q: np.ndarray) -> list[float]:
    """Return [mean, low, high] at 95 %, by resampling questions."""
    rng = make_rng(SEED, "bootstrap")
    drawn = value_Q[rng.integers(0, len(value_Q), size=(RESAMPLES, len(value_Q)))].mean(axis=1)
    return [float(value_Q.mean()), *(float(v) for v in np.quantile(drawn, (0.025, 0.975)))]


def main(arguments: Sequence[str]) -> None:
    is_quick = "--quick" in arguments
    steps, questions = (60, 60) if is_quick else (2400, 500)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "local"
        print("training, recording, fitting", flush=True)
        began_s = time.perf_counter()
        make(out, steps=steps, questions=questions)
        made_s = time.perf_counter() - began_s
        table = load(out / "table")
        _, test = train_and_test(table, seed=SEED)
        cost_M = np.nanmean(table.cost_usd_QM, axis=0)
        dearest, worth_usd = table.names[int(cost_M.argmax())], float(cost_M.max())
        with running(load_config(out / "gateway.toml")) as info:
            result = {
                "table_fingerprint": table.fingerprint,
                "made_s": made_s,
                "questions": len(test.queries),
                "dial": dial_lines(info.base_url, test, worth_usd),
                "fixed": fixed_lines(test),
                "serving": {"model": dearest, "lines": serving_lines(info.base_url, test, dearest)},
            }
    if not is_quick:
        print(record.write("local", result, seed=SEED))
        print(local_picture.draw(result, record.RESULTS / "local.png"))


if __name__ == "__main__":
    main(sys.argv[1:])
