"""This module asks of each router's tests whether they fail once it predicts what kNN or ridge does.

    python -m scripts.mutate_routers [NAMES]    a line for each router: how many of its tests noticed either

A method that no test tells from kNN is kNN under another name. `estimate` alone is replaced, by that of a kNN
or a ridge regression on the same table, embedder and newcomers; all else stays the router's own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

from scripts.mutation import Mutation, line
from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router
from turnout.core.estimate import Estimate
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.routers import KNNRouter, RidgeRouter, registry
from turnout.routers.members import with_embedder

TESTS = Path("tests/routers")
TWINS: dict[str, Callable[[], Router]] = {"knn": KNNRouter, "ridge": RidgeRouter}
_TWIN = "_twin_of_mutation"


@contextmanager
def mutated(kind: type[Router], make: Callable[[], Router]) -> Iterator[None]:
    """Let every router of a class predict as another does, fitted on what it is fitted on."""
    fit, estimate, add = kind.fit, kind.estimate, kind.add_candidate

    def fit_both(self: Router, table: OutcomeTable) -> Router:
        found = fit(self, table)
        embedder = self.config().get("embedder")
        twin = with_embedder(make(), embedder if isinstance(embedder, Embedder) else None)
        self.__dict__[_TWIN] = twin.fit(table)
        return found

    def add_both(self: Router, candidate: Candidate, table: OutcomeTable) -> Router:
        found = add(self, candidate, table)
        if _TWIN in self.__dict__:
            self.__dict__[_TWIN].add_candidate(candidate, table)
        return found

    def estimate_other(self: Router, queries: Sequence[Query]) -> Estimate:
        # What was loaded from an artifact has no table to learn from.
        return self.__dict__[_TWIN].estimate(queries) if _TWIN in self.__dict__ else estimate(self, queries)

    with ExitStack() as stack:
        for name, new in (("fit", fit_both), ("add_candidate", add_both), ("estimate", estimate_other)):
            stack.enter_context(mock.patch.object(kind, name, new))
        yield


def judge(names: Sequence[str], twin: str) -> dict[str, tuple[list[str], int]]:
    """Return for each router which of its tests noticed the twin, and how many tests ran."""
    kinds = {registry.get(name).__module__.rpartition(".")[2]: registry.get(name) for name in names}
    kinds = {module: kind for module, kind in kinds.items() if module != twin}
    places = [TESTS / "neural" if ".neural." in kind.__module__ else TESTS for kind in kinds.values()]
    paths = [place / f"test_{module}.py" for place, module in zip(places, kinds, strict=True)]
    return Mutation(kinds, lambda kind: mutated(kind, TWINS[twin])).run(paths)


def main(names: list[str]) -> int:
    """Judge the routers of these names, or all; return how many went unnoticed in either place."""
    unnoticed = 0
    for twin in TWINS:
        for module, (noticed, total) in judge(names or list(registry), twin).items():
            unnoticed += not noticed
            print(line(f"{module} as {twin}", noticed, total))
    return unnoticed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
