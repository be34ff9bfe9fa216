"""This module writes the report of every table it finds: all baselines, with intervals, and the picture.

The two shipped tables always; routellm_pair, llmrouter, lookahead, zeroeval and routerdc7 where TURNOUT_DATA
names a folder that has them. Nothing is chosen by looking at the reported split.
"""

from __future__ import annotations

import sys

from benchmarks import record
from turnout.core import Goal, InputError, LeakageError, OutcomeTable
from turnout.evaluation import Report, check_split, dense_part
from turnout.routers import RidgeRouter
from turnout.training import study, train, train_and_test

NAMES = ("routellm_pair", "llmrouter", "lookahead", "zeroeval", "routerdc7")
SEED = 0
# The o1 models hide their reasoning tokens, so their recorded costs are far too low.
HIDDEN_COSTS = ("o1-",)


def prepare(table: OutcomeTable) -> OutcomeTable:
    """Keep the dense part of a table, without candidates whose costs are known to be wrong."""
    names = [name for name in table.names if not name.startswith(HIDDEN_COSTS)]
    return dense_part(table.select(candidates=names))


def parts(table: OutcomeTable) -> tuple[OutcomeTable, OutcomeTable]:
    """Return the training and the held-out part; a split that leaks, or is half named, is cut anew."""
    try:
        train_part, test_part = train_and_test(table, seed=SEED)
        check_split(train_part, test_part)
    except (LeakageError, InputError) as error:
        print(f"note: the table's own split is not used: {error}")
        return train_and_test(table, resplit=True, seed=SEED)
    return train_part, test_part


def report(table: OutcomeTable) -> tuple[Report, dict[str, object]]:
    """Train on the training split for equal quality at the least cost, and study the held-out split."""
    train_part, test_part = parts(table)
    goal = Goal(quality_floor=1.0) if table.has_costs else Goal()
    deployment = train(train_part, goal, seed=SEED)
    found = study(deployment, train_part, test_part, others={"ridge": RidgeRouter()}, seed=SEED)
    return found, deployment.certificate


def main(only: list[str]) -> None:
    """Write one JSON and one picture per table."""
    for name, table in record.tables(*NAMES):
        if only and name not in only:
            continue
        dense = prepare(table)
        found, certificate = report(dense)
        record.RESULTS.mkdir(parents=True, exist_ok=True)
        found.to_png(record.RESULTS / f"report_{name}.png")
        result = {
            "table": {"name": name, "fingerprint": table.fingerprint, "dense_fingerprint": dense.fingerprint},
            "certificate": certificate,
            "report": found.to_dict(),
        }
        path = record.write(f"report_{name}", result, seed=SEED)
        print(f"\n{name}: {len(dense.queries)} queries x {len(dense.candidates)} candidates -> {path.name}")
        print(found.to_text())


if __name__ == "__main__":
    main(sys.argv[1:])
