"""This module counts the held-out texts that also stand in training, split by split."""

from __future__ import annotations

from benchmarks import record
from turnout.core import OutcomeTable
from turnout.evaluation import check_split, split

NAMES = ("llmrouter", "routerdc7", "routellm_pair", "lookahead", "zeroeval")
SHARES = {"train": 0.7, "test": 0.3}
SEED = 0


def count(train: OutcomeTable, test: OutcomeTable) -> dict[str, int]:
    """Return how many test queries stand in train word for word, how many more nearly so, and of how many."""
    found = check_split(train, test, allow_leakage=True)
    return {"exact": found.exact, "near": found.near, "of": found.num_test}


def main() -> None:
    """Write `leakage.json`."""
    result: dict[str, object] = {}
    for name, table in record.tables(*NAMES):
        found: dict[str, object] = {"fingerprint": table.fingerprint}
        if {"train", "test"} <= set(table.splits):
            found["own"] = count(table.select(split="train"), table.select(split="test"))
        cuts = {"random": table.split_by_query(SHARES, seed=SEED), "turnout": split(table, SHARES, seed=SEED)}
        found |= {kind: count(parts["train"], parts["test"]) for kind, parts in cuts.items()}
        result[name] = found
        print(name, found, flush=True)
    print(record.write("leakage", result, seed=SEED).name)


if __name__ == "__main__":
    main()
