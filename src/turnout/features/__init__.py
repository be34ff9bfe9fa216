"""What do we know before anyone answers?

Contract: `Embedder.fit(queries)` learns from texts alone, never from outcomes; `Embedder.embed(queries)`
returns `x_QF`, float32 of shape (Q, F), and changes nothing that a caller can see.

Imports: `core`. Used by: `routers`, `training`, `gateway`. Siblings it does not see: `policies`,
`dispatch`, `datasets`, `nn`.

`registry` is the room's table: a name, and the "module:Class" that it stands for. The classes load on
first use, so an encoder that needs an optional package costs nothing until it is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnout.core.contracts import Embedder
from turnout.core.lazy import lazy_exports
from turnout.core.registry import Registry

if TYPE_CHECKING:
    from turnout.features.api import ApiEmbedder
    from turnout.features.cached import CachedEmbedder
    from turnout.features.columns import ColumnsEmbedder
    from turnout.features.joined import JoinedEmbedder
    from turnout.features.onnx import OnnxEmbedder
    from turnout.features.sentence import SentenceEmbedder
    from turnout.features.signals import SignalsEmbedder
    from turnout.features.task import TaskEmbedder
    from turnout.features.text import TextEmbedder

TABLE = {
    "api": "turnout.features.api:ApiEmbedder",
    "cached": "turnout.features.cached:CachedEmbedder",
    "columns": "turnout.features.columns:ColumnsEmbedder",
    "joined": "turnout.features.joined:JoinedEmbedder",
    "onnx": "turnout.features.onnx:OnnxEmbedder",
    "sentence": "turnout.features.sentence:SentenceEmbedder",
    "signals": "turnout.features.signals:SignalsEmbedder",
    "task": "turnout.features.task:TaskEmbedder",
    "text": "turnout.features.text:TextEmbedder",
}
"""Names of the embedders."""

registry = Registry("features", TABLE, kind=Embedder)
"""The room's names; third parties add theirs through the entry points `turnout.features`."""

__all__ = [
    "TABLE",
    "ApiEmbedder",
    "CachedEmbedder",
    "ColumnsEmbedder",
    "JoinedEmbedder",
    "OnnxEmbedder",
    "SentenceEmbedder",
    "SignalsEmbedder",
    "TaskEmbedder",
    "TextEmbedder",
    "registry",
]

__getattr__, __dir__ = lazy_exports(__name__, {path.split(":")[1]: path for path in TABLE.values()})
