"""Everything a reader may meet by name has its heading, and the generated pages are up to date."""

from __future__ import annotations

import inspect

import pytest

from scripts import reference
from tests.docs import markdown
from turnout.core import errors
from turnout.routers import registry as routers

DOCS = markdown.ROOT / "docs"
ERRORS = [
    name
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.TurnoutError)
]


def test_every_error_has_a_heading() -> None:
    assert len(ERRORS) > 5
    assert markdown.without_heading(DOCS / "errors.md", ERRORS) == []


def test_no_heading_names_an_error_that_is_gone() -> None:
    named = [text for text in markdown.headings(DOCS / "errors.md") if text.endswith("Error")]
    assert sorted(named) == sorted(ERRORS)


@pytest.mark.parametrize("room", reference.ROOMS)
def test_every_name_of_a_room_has_a_heading(room: str) -> None:
    names = [entry.name for entry in reference.entries(room)]
    assert markdown.without_heading(DOCS / "reference" / f"{room}.md", names) == []


def test_every_gate_has_a_heading_on_its_page() -> None:
    names = [e.name for e in reference.entries("nn") if e.module.startswith("turnout.nn.gates.")]
    assert len(names) > 10
    assert markdown.without_heading(DOCS / "gates.md", names) == []


def test_every_router_has_a_heading_on_its_page() -> None:
    assert markdown.without_heading(DOCS / "routers.md", list(routers)) == []


@pytest.mark.parametrize("room", reference.ROOMS)
def test_reference_pages_are_up_to_date(room: str) -> None:
    path = DOCS / "reference" / f"{room}.md"
    written = path.read_text(encoding="utf-8") if path.exists() else None
    assert written == reference.page(room), "run `make docs`"
