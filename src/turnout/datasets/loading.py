"""This module finds tables by name or path: bundled, below TURNOUT_DATA, made up, or in a foreign file."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path

from turnout.core.errors import InputError, UnknownNameError, did_you_mean, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.core.progress import Progress, silent
from turnout.core.registry import Registry
from turnout.datasets.detection import detect
from turnout.datasets.importers.base import Importer
from turnout.datasets.importers.folder import is_table_folder
from turnout.datasets.synthetic import synthetic

BUNDLED = ("open9", "reason18")
"""The tables that ship inside the package."""

DATA_VARIABLE = "TURNOUT_DATA"
"""The environment variable that names a folder of further tables."""

_EXAMPLES = Path(__file__).parent / "examples"


def load_table(name_or_path: str | Path, *, responses: bool, registry: Registry) -> OutcomeTable:
    """Find and read a table; see `turnout.datasets.load`."""
    if name_or_path == "synthetic":
        return synthetic().table
    path = find_table(name_or_path)
    if is_table_folder(path):
        return read_table(path, format_name="folder", options={"responses": responses}, registry=registry)
    return read_table(path, format_name=None, options={}, registry=registry)


def find_table(name_or_path: str | Path) -> Path:
    """Return where a table lies: a bundled name, a path, or a name below TURNOUT_DATA, in this order."""
    if not isinstance(name_or_path, str | Path):
        raise InputError(
            sentence(
                "load: the table",
                allowed="a name or a path, as a string or a Path",
                got=name_or_path,
                do=f"name one, such as {BUNDLED[0]!r}",
            )
        )
    name = str(name_or_path)
    if name in BUNDLED:
        return _EXAMPLES / name
    path = Path(name_or_path)
    if name and _exists(path):
        return path
    found = {folder.name: folder for folder in data_folders()}
    if name in found:
        return found[name]
    known = {*BUNDLED, "synthetic", *found}
    raise UnknownNameError(
        sentence(
            f"no table is called {name!r}, and no file or folder is there",
            allowed=f"a bundled name, a path, or a name below the folder in {DATA_VARIABLE}",
            do=did_you_mean(name, known),
        )
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # Too long for a path, or not to be looked at: then it is no path that can be read.
        return False


def data_folders() -> list[Path]:
    """Return the table folders below TURNOUT_DATA, `examples/` and `outcomes/`; the first of a name wins."""
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        return []
    found: dict[str, Path] = {}
    for parent in (Path(root), Path(root, "examples"), Path(root, "outcomes")):
        if parent.is_dir():
            for folder in sorted(parent.iterdir()):
                if is_table_folder(folder):
                    found.setdefault(folder.name, folder)
    return list(found.values())


def read_table(
    path: Path,
    *,
    format_name: str | None,
    options: Mapping[str, object],
    registry: Registry,
    progress: Progress = silent,
) -> OutcomeTable:
    """Read a file in a named format, or in the one that its first bytes and the options show."""
    name = format_name or detect(path, registry=registry, options=options)
    importer = make_importer(name, options, registry=registry)
    importer.progress = progress
    return importer.read(path)


def make_importer(name: str, options: Mapping[str, object], *, registry: Registry) -> Importer:
    """Construct the importer of a format; an option it does not have is an `InputError`."""
    cls = registry.get(name)
    known = list(inspect.signature(cls).parameters)
    for option in options:
        if option not in known:
            raise InputError(
                sentence(f"the format {name!r} has no option {option!r}", do=did_you_mean(option, known))
            )
    importer: Importer = cls(**options)
    return importer
