"""This module writes a benchmark's result with all that is needed to run it again."""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from turnout import __version__
from turnout.core import OutcomeTable
from turnout.datasets import load

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SHIPPED = ("reason18", "open9")


def tables(*names: str, only: Collection[str] | None = None) -> Iterator[tuple[str, OutcomeTable]]:
    """Yield the two shipped tables, then those of `names` that lie below TURNOUT_DATA.

    Each is read when its turn comes; those that are not in `only` are not read at all.
    """
    folder = os.environ.get("TURNOUT_DATA")
    for name in dict.fromkeys((*SHIPPED, *names)):
        is_there = name in SHIPPED or (
            folder and any((Path(folder) / part / name).is_dir() for part in ("", "outcomes", "examples"))
        )
        if is_there and (only is None or name in only):
            yield name, load(name)


def _anywhere(arguments: list[str]) -> list[str]:
    """Return the arguments without the folders of one machine: a path from the root by its last name."""
    return [Path(word).name if word.startswith("/") else word for word in arguments]


def write(name: str, result: Mapping[str, object], *, seed: int | None = None) -> Path:
    """Write `benchmarks/results/<name>.json` with commit, command, seed, versions and machine."""
    body = {
        "benchmark": name,
        "commit": commit(),
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *_anywhere(sys.argv[1:])]),
        "seed": seed,
        "turnout": __version__,
        "python": platform.python_version(),
        "machine": {"cpu": cpu(), "cores": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS")},
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "result": result,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(_finite(body), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def commit() -> str:
    """Return the commit of the checkout; `+` says that tracked files differ from it.

    A copy without its history, as on a lent machine, is told by TURNOUT_COMMIT.
    """
    if told := os.environ.get("TURNOUT_COMMIT"):
        return told
    done = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks/*.py"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return (done.stdout.strip() or "unknown") + ("+" if changed.stdout.strip() else "")


def cpu() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
