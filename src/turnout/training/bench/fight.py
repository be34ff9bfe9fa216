"""This module runs every method on every prepared table, one JSON a cell, and goes on where it stopped."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from turnout.core.errors import MissingExtraError, sentence
from turnout.core.progress import Progress, silent
from turnout.core.validation import check_count
from turnout.training.bench.cell import run_cell

Cell = dict[str, Any]
Key = tuple[Path, str]


def fight(
    places: Sequence[Path],
    methods: Sequence[str],
    folder: Path,
    *,
    seed: int = 0,
    jobs: int = 1,
    use_ray: bool = False,
    about: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> list[Cell]:
    """Return the cells of all methods on all places; what stands in `folder` from before is not run again.

    `about` is written into each cell that is run, such as the commit it was run at. A cell that could not run
    is tried again. Each cell has a process of its own, so that memory is its own;
    `use_ray` hands cells to Ray instead, a running cluster or a local one.
    """
    check_count("fight: jobs", jobs)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(place, name) for place in places for name in methods]
    found = {key: cell for key in wanted if (cell := read_cell(folder, *key, seed=seed)) is not None}
    missing = [key for key in wanted if key not in found]
    run = _on_ray if use_ray else _in_processes
    for number, (key, cell) in enumerate(run(missing, seed, jobs)):
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
    return cell if cell.get("seed") == seed and "error" not in cell else None


def _path(folder: Path, place: Path, name: str) -> Path:
    return folder / f"{place.name}--{name}.json"


def _write(folder: Path, key: Key, cell: Cell) -> None:
    """Write a cell in one go, so that an interruption leaves no half of it."""
    path = _path(folder, *key)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(cell, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _in_processes(missing: Sequence[Key], seed: int, jobs: int) -> Iterator[tuple[Key, Cell]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        futures = {pool.submit(_work, place, name, seed): (place, name) for place, name in missing}
        waiting = set(futures)
        try:
            while waiting:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
