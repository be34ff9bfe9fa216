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
CONTRACTS = {
    name
    for name, value in vars(contracts).items()
    if isinstance(value, type) and issubclass(value, contracts.Configured)
}


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


@pytest.mark.parametrize("room", ROOMS)
def test_every_class_stands_in_its_own_file_of_its_own_room(room: str) -> None:
    entries = reference.entries(room)
    files = Counter(entry.module for entry in entries)
    assert [module for module, count in files.items() if count > 1] == []
    assert [e.name for e in entries if not e.module.startswith(f"turnout.{room}.")] == []
    assert [reference.find_class(e).name for e in entries] == [e.class_name for e in entries]


@pytest.mark.parametrize("room", ROOMS)
def test_no_algorithm_is_missing_from_its_table(room: str) -> None:
    listed = {(entry.module, entry.class_name) for entry in reference.entries(room)}
    found = {(module, node.name) for module, node in public_classes(room) if is_algorithm(node)}
    assert found - listed == set()


@pytest.mark.parametrize("room", ROOMS)
def test_every_algorithm_has_a_test_file(room: str) -> None:
    missing = [entry.test for entry in reference.entries(room) if not entry.test.is_file()]
    assert [path.relative_to(reference.ROOT).as_posix() for path in missing] == []


@pytest.mark.parametrize("page", ["docs/papers.md", "CHANGELOG.md"])
@pytest.mark.parametrize("room", ROOMS)
def test_every_algorithm_is_mentioned(room: str, page: str) -> None:
    text = (reference.ROOT / page).read_text(encoding="utf-8")
    assert [e.class_name for e in reference.entries(room) if f"`{e.class_name}`" not in text] == []


def test_no_algorithm_stands_twice_in_papers() -> None:
    """A merge that keeps both sides would leave the line of before beside the new one."""
    lines = (reference.ROOT / "docs" / "papers.md").read_text(encoding="utf-8").splitlines()
    firsts = [line.split("|")[1].strip() for line in lines if line.startswith("| `")]
    assert [name for name, count in Counter(firsts).items() if count > 1] == []
