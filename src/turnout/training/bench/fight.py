"""This module runs every method on every prepared table, one JSON a cell, and goes on where it stopped."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from turnout.core.errors import MissingExtraError, sentence
from turnout.core.progress import Progress, silent
from turnout.core.validation import check_count
from turnout.training.bench.cell import run_cell
from turnout.training.bench.llmrouter_worker import bound
from turnout.training.bench.told import READERS, is_told

Cell = dict[str, Any]
Key = tuple[Path, str]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What libraries read once, when they are loaded."""


def fight(
    places: Sequence[Path],
    methods: Sequence[str],
    folder: Path,
    *,
    seed: int = 0,
    jobs: int = 1,
    use_ray: bool = False,
    limit_s: int | None = None,
    about: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> list[Cell]:
    """Return the cells of all methods on all places; what stands in `folder` from before is not run again.

    `about` is written into each cell that is run, such as the commit it was run at. A cell that could not run
    is tried again. Each cell has a process of its own with one thread, so that memory and time are its own;
    one that takes more than `limit_s` seconds of the processor ends, and its row says so. `use_ray` hands
    cells to Ray instead, a running cluster or a local one, which keeps no such limit.
    """
    check_count("fight: jobs", jobs)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(place, name) for place in places for name in methods]
    found = {key: cell for key in wanted if (cell := read_cell(folder, *key, seed=seed)) is not None}
    missing = [key for key in wanted if key not in found]
    if limit_s is not None:
        check_count("fight: limit_s", limit_s)
    run = _on_ray(missing, seed, jobs) if use_ray else _in_processes(missing, seed, jobs, limit_s)
    for number, (key, cell) in enumerate(run):
        found[key] = {**(about or {}), **cell}
        _write(folder, key, found[key])
        done = len(wanted) - len(missing) + number + 1
        progress(f"{key[0].name}: {key[1]}", done, len(wanted))
    return [found[key] for key in wanted]


def read_cell(folder: Path, place: Path, name: str, *, seed: int) -> Cell | None:
    """Return a cell that was written before with this seed; None where it is missing, cut off or failed."""
    try:
        cell: Cell = json.loads(_path(folder, place, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # A cell from before cells said what was told may have been told more than one of now.
    is_same = cell.get("seed") == seed and ("told" in cell or name not in READERS)
    return cell if is_same and "error" not in cell else None


def _path(folder: Path, place: Path, name: str) -> Path:
    return folder / f"{place.name}--{name}.json"


def _write(folder: Path, key: Key, cell: Cell) -> None:
    """Write a cell in one go, so that an interruption leaves no half of it."""
    path = _path(folder, *key)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(cell, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _in_processes(
    missing: Sequence[Key], seed: int, jobs: int, limit_s: int | None
) -> Iterator[tuple[Key, Cell]]:
    context = multiprocessing.get_context("spawn")
    waiting = deque(missing)
    running: dict[Any, tuple[Key, SpawnProcess]] = {}
    with _one_thread_each():
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    key = waiting.popleft()
                    here, there = context.Pipe(duplex=False)
                    process = context.Process(target=_send, args=(there, *key, seed, limit_s))
                    with _deaf():
                        process.start()
                    there.close()
                    running[here] = key, process
                for pipe in connection.wait(list(running)):
                    key, process = running.pop(pipe)
                    yield key, _received(pipe, key, process, seed, limit_s)
        finally:
            for _, process in running.values():
                process.terminate()
                process.join()


def _send(pipe: connection.Connection, place: Path, name: str, seed: int, limit_s: int | None) -> None:
    """Run a cell in this process and send it to the one that started it."""
    _end_at_once()
    if limit_s is not None:
        bound(limit_s)
    pipe.send(_work(place, name, seed))


def _received(pipe: Any, key: Key, process: SpawnProcess, seed: int, limit_s: int | None) -> Cell:
    """Return what a process sent; one that ended without a word becomes a row that says so."""
    try:
        cell: Cell = pipe.recv()
    except EOFError:
        process.join()
        why = f"its process ended with {process.exitcode}"
        if limit_s is not None and process.exitcode == -signal.SIGXCPU:
            why = f"not done after {limit_s:,} s of the processor"
        return {"set": key[0].name, "method": key[1], "told": is_told(key[1]), "seed": seed, "error": why}
    finally:
        pipe.close()
    process.join()
    return cell


@contextmanager
def _deaf() -> Iterator[None]:
    """Let threads and processes that start meanwhile not hear Ctrl-C, until `_end_at_once`.

    A process that hears it while it is starting writes a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_at_once() -> None:
    """Let Ctrl-C end this process without a word; the one that started it says what there is to say."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that start meanwhile compute with one thread; Ray does so by itself."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _on_ray(missing: Sequence[Key], seed: int, jobs: int) -> Iterator[tuple[Key, Cell]]:
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            sentence("cells on Ray", got=str(error), do="pip install 'turnout[ray]', or leave --ray out")
        ) from error
    is_mine = not ray.is_initialized()
    if is_mine:
        ray.init(num_cpus=jobs, include_dashboard=False, log_to_driver=False)
    try:
        work: Callable[..., Any] = ray.remote(num_cpus=1, max_calls=1)(_work).remote
        keys = {work(place, name, seed): (place, name) for place, name in missing}
        waiting = list(keys)
        while waiting:
            ready, waiting = ray.wait(waiting)
            for reference in ready:
                yield keys[reference], ray.get(reference)
    finally:
        if is_mine:
            ray.shutdown()


def _work(place: Path, name: str, seed: int) -> Cell:
    return run_cell(place, name, seed=seed)
