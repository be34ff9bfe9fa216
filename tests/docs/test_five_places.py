"""An algorithm is one file, one table line, one test file, one line of papers.md and one of the changelog."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

import pytest

from scripts import reference
from turnout.core import contracts

# The rooms of algorithms; the importers of `datasets` follow formats, not papers.
ROOMS = [room for room in reference.ROOMS if room != "datasets"]
ENTRIES = [entry for room in ROOMS for entry in reference.entries(room)]
CONTRACTS = {
    name
    for name, value in vars(contracts).items()
    if isinstance(value, type) and issubclass(value, contracts.Configured)
}


def label(entry: reference.Entry) -> str:
    """Name an entry in a test's id."""
    return f"{entry.room}-{entry.name}"


def public_classes(room: str) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield (module, class) for every public class of a room."""
    folder = reference.ROOT / "src" / "turnout" / room
    for path in sorted(folder.rglob("*.py")):
        module = ".".join(path.relative_to(reference.ROOT / "src").with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield module, node


def is_algorithm(node: ast.ClassDef) -> bool:
    """Whether a class implements a contract of core and is not itself abstract."""
    decorators = {
        ast.unparse(d) for n in node.body if isinstance(n, ast.FunctionDef) for d in n.decorator_list
    }
    return bool({ast.unparse(base) for base in node.bases} & CONTRACTS) and "abstractmethod" not in decorators


@pytest.mark.parametrize("entry", ENTRIES, ids=label)
def test_the_class_stands_in_its_own_file_of_its_own_room(entry: reference.Entry) -> None:
    assert entry.module.startswith(f"turnout.{entry.room}.")
    assert reference.find_class(entry).name == entry.class_name


@pytest.mark.parametrize("entry", ENTRIES, ids=label)
def test_it_has_a_test_file(entry: reference.Entry) -> None:
    assert entry.test.is_file(), f"write {entry.test.relative_to(reference.ROOT)}"


@pytest.mark.parametrize("entry", ENTRIES, ids=label)
@pytest.mark.parametrize("page", ["docs/papers.md", "CHANGELOG.md"])
def test_it_is_mentioned(entry: reference.Entry, page: str) -> None:
    text = (reference.ROOT / page).read_text(encoding="utf-8")
    assert f"`{entry.class_name}`" in text, f"{page} does not mention `{entry.class_name}`"


@pytest.mark.parametrize("room", ROOMS)
def test_one_algorithm_a_file(room: str) -> None:
    files = Counter(entry.module for entry in reference.entries(room))
    assert [module for module, count in files.items() if count > 1] == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_algorithm_is_missing_from_its_table(room: str) -> None:
    listed = {(entry.module, entry.class_name) for entry in reference.entries(room)}
    found = {(module, node.name) for module, node in public_classes(room) if is_algorithm(node)}
    assert found - listed == set()
