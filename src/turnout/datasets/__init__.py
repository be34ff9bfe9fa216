"""Where do outcome tables come from?

Contract: `load(name_or_path) -> OutcomeTable`; `read` and `detect` for the files of other projects; and
`synthetic`, a table whose optimum is known. Whatever comes in is checked at this edge, and a fault is named
by file and line. Unknown stays unknown: no importer writes 0 for a score, cost or time that was not recorded.

Imports: `core`. Used by: `evaluation`, `training`, `cli`. Siblings it does not see: `features`, `policies`,
`dispatch`, `nn`. Routers never import it, so that no router can reach a test set.

`registry` is the room's table: the name of a format, and the "module:Class" of its importer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from turnout.core.outcomes import OutcomeTable
from turnout.core.progress import Progress, silent
from turnout.core.registry import Registry
from turnout.datasets import detection, loading
from turnout.datasets.importers.base import Head, Importer
from turnout.datasets.synthetic import synthetic
from turnout.datasets.world import Optimum, SyntheticWorld

__all__ = [
    "Head",
    "Importer",
    "Optimum",
    "SyntheticWorld",
    "detect",
    "formats",
    "load",
    "names",
    "read",
    "registry",
    "synthetic",
]

registry = Registry(
    "datasets",
    {
        "folder": "turnout.datasets.importers.folder:Folder",
        "ledger": "turnout.datasets.importers.ledger:Ledger",
        "llmrouter": "turnout.datasets.importers.llmrouter:LLMRouter",
        "llmrouterbench": "turnout.datasets.importers.llmrouterbench:LLMRouterBench",
        "long": "turnout.datasets.importers.long:Long",
        "notdiamond": "turnout.datasets.importers.notdiamond:NotDiamond",
        "routellm": "turnout.datasets.importers.routellm:RouteLLM",
        "routerbench": "turnout.datasets.importers.routerbench:RouterBench",
        "routerdc": "turnout.datasets.importers.routerdc:RouterDC",
        "vllm_sr": "turnout.datasets.importers.vllm_sr:VllmSemanticRouter",
    },
)
"""Names of the formats; third parties add theirs through the entry points `turnout.datasets`."""


def load(name_or_path: str | Path, *, responses: bool = False) -> OutcomeTable:
    """Return a table by name or path.

    Parameters
    ----------
    name_or_path:
        A bundled name (`reason18`, `open9`), `synthetic`, a folder in turnout's layout, a file or folder
        in a format of `formats()`, or a name below the folder in the environment variable TURNOUT_DATA. A
        bundled name comes before a path of the same name; write `./reason18` for the path.
    responses:
        Whether to read the recorded answers of a folder, too, as the extra column `response`.

    Raises
    ------
    UnknownNameError
        If nothing has this name or lies at this path.
    TableError
        If it is there and its content is wrong.

    Example
    -------
    >>> load("reason18")
    OutcomeTable(2119 queries x 18 candidates, 38142 rows)
    """
    return loading.load_table(name_or_path, responses=responses, registry=registry)


def read(
    path: str | Path,
    *,
    format_name: str | None = None,
    options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> OutcomeTable:
    """Read a file or folder in a format of `formats()`; None detects it.

    `options` are the arguments of the format's importer, such as `{"scale": (1, 10)}` for `notdiamond`.
    `progress` is told how far a file of the format `long` was read.
    """
    return loading.read_table(
        Path(path), format_name=format_name, options=options or {}, registry=registry, progress=progress
    )


def detect(path: str | Path, *, options: Mapping[str, object] | None = None) -> str:
    """Return the name of the format of a file or folder; `InputError` lists the formats where unclear.

    `options` are those that `read` will be given: who names columns has a `long` file.
    """
    return detection.detect(path, registry=registry, options=options)


def formats() -> dict[str, str]:
    """Return every format's name and one line on what it is."""
    return {name: importer.summary for name, importer in detection.importer_classes(registry).items()}


def names() -> tuple[str, ...]:
    """Return the names that `load` knows: bundled, `synthetic`, and those below TURNOUT_DATA."""
    found = [folder.name for folder in loading.data_folders()]
    return tuple(dict.fromkeys([*loading.BUNDLED, "synthetic", *found]))
