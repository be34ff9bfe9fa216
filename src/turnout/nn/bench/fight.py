"""This module trains every gate with every seed, writes one JSON a cell, and goes on where it was stopped."""

from __future__ import annotations

import json
import math
import multiprocessing
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from turnout.core.errors import InputError, sentence
from turnout.core.progress import Progress, silent
from turnout.core.validation import check_count
from turnout.nn.bench.cells import run_cell
from turnout.nn.bench.corpus import Corpus, load_corpus
from turnout.nn.bench.setting import Setting

Cells = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Fight:
    """All cells, and how the last call went: how many of them it trained, and how long that took."""

    cells: Cells
    trained: int
    wall_s: float
    jobs: int
    """Cells at a time."""
    threads: int
    """Threads of each cell."""

    def run(self) -> dict[str, float]:
        """Return what is written down of the call."""
        return {name: getattr(self, name) for name in ("trained", "wall_s", "jobs", "threads")}


def fight(
    setting: Setting,
    folder: Path,
    *,
    text: Path | None = None,
    jobs: int = 1,
    device: str = "cpu",
    progress: Progress = silent,
    about: Mapping[str, str] | None = None,
) -> Fight:
    """Return the results of all cells; what stands in `folder` from before is not trained again.

    Each cell is one process's work with one thread where `jobs` is above 1; `about` is kept in each that is
    trained. A cell of another setting or another text in the folder raises `InputError`, since comparisons
    must not be mixed, and so does a device that is not there.
    """
    check_count("fight: jobs", jobs)
    _check_device(device)
    began = time.monotonic()
    corpus = load_corpus(text)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = setting.cells()
    missing = [cell for cell in wanted if read_cell(folder, *cell, setting=setting, corpus=corpus) is None]
    keep = _Keeper(folder, dict(about or {}))
    if jobs == 1:
        for number, cell in enumerate(missing):
            done = len(wanted) - len(missing) + number
            keep(run_cell(setting, *cell, corpus, device=device, progress=_part(progress, done, wanted)))
    else:
        _run_many(setting, keep, missing, text, jobs, progress)
    found = [read_cell(folder, *cell, setting=setting, corpus=corpus) for cell in wanted]
    return Fight(
        cells=[cell for cell in found if cell is not None],
        trained=len(missing),
        wall_s=time.monotonic() - began,
        jobs=jobs,
        threads=torch.get_num_threads() if jobs == 1 else 1,
    )


def _check_device(name: str) -> None:
    """Raise `InputError` unless a number can be kept on a device."""
    try:
        torch.zeros(1, device=name).item()
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        got = f"{name}: {str(error).splitlines()[0]}"
        raise InputError(sentence("device", allowed="cpu, or a device of this machine", got=got)) from error


def read_cell(
    folder: Path, name: str, seed: int, *, setting: Setting, corpus: Corpus
) -> dict[str, Any] | None:
    """Return a cell that was written before, None if there is none or it was cut off."""
    path = _path(folder, name, seed)
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    for key, here in (("key", setting.key), ("corpus", corpus.fingerprint)):
        if found.get(key) != here:
            raise InputError(
                sentence(
                    f"{path.name} belongs to another {'setting' if key == 'key' else 'text'}",
                    allowed=f"{key} {here}",
                    got=found.get(key),
                    do="name another folder",
                )
            )
    return found


def _path(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name}-{seed}.json"


@dataclass(frozen=True)
class _Keeper:
    """Writes a cell in one go, so that an interruption leaves no half of it."""

    folder: Path
    about: dict[str, str]

    def __call__(self, found: dict[str, Any]) -> None:
        body = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in found.items()}
        path = _path(self.folder, found["gate"], found["seed"])
        part = path.with_suffix(".part")
        part.write_text(json.dumps(body | self.about, indent=1) + "\n", encoding="utf-8")
        part.replace(path)


def _part(progress: Progress, done: int, wanted: Sequence[object]) -> Progress:
    """Return a progress of one cell's steps among all cells."""

    def report(phrase: str, step: int, steps: int) -> None:
        progress(f"{phrase} ({done + 1} of {len(wanted)})", done * steps + step, len(wanted) * steps)

    return report


def _run_many(
    setting: Setting,
    keep: _Keeper,
    missing: Sequence[tuple[str, int]],
    text: Path | None,
    jobs: int,
    progress: Progress,
) -> None:
    """Run cells in processes of one thread each; results are written as they come.

    An interruption ends the processes at once and keeps the cells that are done.
    """
    context = multiprocessing.get_context("spawn")
    total, others = len(setting.cells()), set(multiprocessing.active_children())
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_one_thread) as pool:
        with _no_interrupt():
            futures = [pool.submit(_work, setting, name, seed, text) for name, seed in missing]
        waiting: set[Future[dict[str, Any]]] = set(futures)
        try:
            while waiting:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    keep(future.result())
                progress("cells", total - len(waiting), total)
        except BaseException:
            # A cell takes minutes, and the pool would wait for those that run.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            for future in futures:
                if future.done() and not future.cancelled() and future.exception() is None:
                    keep(future.result())
            raise


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back, so that what is started meanwhile never hears of it: who started it ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _one_thread() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _work(setting: Setting, name: str, seed: int, text: Path | None) -> dict[str, Any]:
    return run_cell(setting, name, seed, load_corpus(text))
