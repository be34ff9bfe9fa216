"""This module lets LLMRouter (ulab) take part: its own routers and trainers, in an installation of its own.

Its wheel brings torch, gradio and much else, so it isn't a dependency: `TURNOUT_LLMROUTER` names the Python
of an environment where `pip install llmrouter-lib` was run. Routers and trainers read our vectors in place of
Longformer's, from the files that their configuration names; a choice is what its `route_single` does after
the text is embedded. They choose and predict nothing, so they have one point and no curve.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from turnout.core.errors import MissingExtraError, TurnoutError, sentence
from turnout.core.outcomes import Ints, OutcomeTable

PYTHON = "TURNOUT_LLMROUTER"
"""The environment variable that names its Python."""
METHODS = {f"llmrouter_{method}": method for method in ("knn", "svm", "mlp", "mf")}
"""Name -> method of LLMRouter."""
LIMIT_S = 600
"""Seconds of the processor after which it ends, which learning can take."""
WAIT_S = 3_600.0
"""Seconds of the clock after which an answer is no longer waited for, should it have gone to sleep."""
_WORKER = Path(__file__).with_name("llmrouter_worker.py")


class Worker:
    """A process that trained one of LLMRouter's routers and waits for vectors."""

    def __init__(self, name: str, train: OutcomeTable, x_NF: np.ndarray) -> None:
        self.names = train.names
        command = [python(), str(_WORKER)]
        folder = Path(tempfile.mkdtemp())
        _write(folder, train, x_NF)
        self._log = folder / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        weakref.finalize(self, _end, self._process, folder)
        learned = self._ask(folder=str(folder), method=METHODS[name], limit_s=LIMIT_S)
        self.fit_s, self.peak_mb = float(learned["fit_s"]), float(learned["peak_mb"])

    def choose(self, x_QF: np.ndarray) -> Ints:
        """Return the candidate chosen for each vector, shape (Q,)."""
        order = {name: column for column, name in enumerate(self.names)}
        chosen = self._ask(rows=np.asarray(x_QF, np.float64).tolist())["chosen"]
        return np.array([order[name] for name in chosen], np.int64)

    def _ask(self, **question: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended; what it said last is read below
        answer = self._answer(self._process.stdout)
        if "error" in answer:
            raise MissingExtraError(
                sentence(
                    "LLMRouter could not run",
                    got=answer["error"],
                    do=f"pip install llmrouter-lib where {PYTHON} points to",
                )
            )
        return answer

    def _answer(self, pipe: IO[str]) -> dict[str, Any]:
        if not select.select([pipe], [], [], WAIT_S)[0]:
            self._process.kill()
            raise _late(f"{WAIT_S / 60:.3g} minutes")
        line = pipe.readline()
        found: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        return found

    def _last_words(self) -> str:
        if self._process.wait() == -signal.SIGXCPU:
            raise _late(f"{LIMIT_S / 60:.3g} minutes of the processor")
        lines = self._log.read_text(encoding="utf-8").strip().splitlines()
        return lines[-1] if lines else f"it ended with {self._process.returncode}"


def _late(allowed: str) -> TurnoutError:
    return TurnoutError(
        sentence(
            "LLMRouter has not finished",
            allowed=allowed,
            do="leave this method out, or take a smaller table",
        )
    )


def python() -> str:
    """Return the Python of LLMRouter's environment; raises `MissingExtraError` where none is named."""
    place = os.environ.get(PYTHON)
    if place:
        return place
    raise MissingExtraError(
        sentence(
            "this peer runs in an environment of its own",
            do=f"pip install llmrouter-lib in one, and let {PYTHON} name its Python",
        )
    )


def _write(folder: Path, train: OutcomeTable, x_NF: np.ndarray) -> None:
    """Write vectors and outcomes as LLMRouter reads them: one JSON line per (query, model)."""
    np.save(folder / "vectors.npy", np.asarray(x_NF, np.float32))
    (folder / "llm.json").write_text(json.dumps({name: {} for name in train.names}), encoding="utf-8")
    rows, columns = np.nonzero(train.observed_QM)
    lines = _lines(train, rows.tolist(), columns.tolist())
    (folder / "routing.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(train: OutcomeTable, rows: Sequence[int], columns: Sequence[int]) -> list[str]:
    return [
        json.dumps(
            {
                "query": f"q{row}",
                "embedding_id": row,
                "model_name": train.names[column],
                "performance": float(train.quality_QM[row, column]),
            }
        )
        for row, column in zip(rows, columns, strict=True)
    ]


def _end(process: subprocess.Popen[str], folder: Path) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    shutil.rmtree(folder, ignore_errors=True)
