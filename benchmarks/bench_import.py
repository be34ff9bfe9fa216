"""This module times `import turnout` in fresh processes, with a warm file cache, and lists what it loads."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from benchmarks import record

REPEATS = 25
LIST = (
    "import sys, json; before = set(sys.modules); import turnout; "
    "tops = {name.split('.')[0] for name in set(sys.modules) - before}; "
    "print(json.dumps(sorted(tops - set(sys.stdlib_module_names) - {'turnout'})))"
)


def seconds(code: str) -> float:
    """Return the wall time of one interpreter that runs `code`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Compare an empty program, numpy and turnout, one after the other in each round."""
    programs = {"empty": "pass", "numpy": "import numpy", "turnout": "import turnout"}
    programs |= {"turnout.Goal": "import turnout; turnout.Goal"}
    for code in programs.values():
        seconds(code)
    rounds = [{name: seconds(code) for name, code in programs.items()} for _ in range(REPEATS)]
    medians = {name: statistics.median(one[name] for one in rounds) for name in programs}
    done = subprocess.run([sys.executable, "-c", LIST], check=True, capture_output=True, text=True)
    result = {
        "seconds_median": medians,
        "import_turnout_s": medians["turnout"] - medians["empty"],
        "import_turnout_s_quartiles": statistics.quantiles(
            [one["turnout"] - one["empty"] for one in rounds], n=4
        ),
        "third_party_loaded": json.loads(done.stdout),
        "repeats": REPEATS,
    }
    path = record.write("import", result, seed=0)
    median_s, loaded = result["import_turnout_s"], result["third_party_loaded"]
    print(f"import turnout: {median_s:.3f} s, third-party packages loaded: {loaded} -> {path.name}")


if __name__ == "__main__":
    main()
