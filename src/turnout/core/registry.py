"""This module turns names into classes: lazily, once, and with a useful word about a name it lacks.

Each room keeps one table, `name -> "module:Class"`. Third parties add to it through entry points of the
group `turnout.<room>`. A table freezes at its first look-up; collisions fail.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import final

from turnout.core.errors import InputError, UnknownNameError, did_you_mean, sentence

_LOCK = threading.RLock()


@final
class Registry:
    """The names of one room.

    Example
    -------
    >>> registry = Registry("demo", {"ordered": "collections:OrderedDict"})
    >>> registry.get("ordered").__name__
    'OrderedDict'
    """

    def __init__(self, room: str, table: Mapping[str, str]) -> None:
        self.room = room
        self._paths: dict[str, str] = {}
        self._loaded: dict[str, type] = {}
        self._is_frozen = False
        for name, path in table.items():
            self.add(name, path)

    def add(self, name: str, path: str) -> None:
        """Add `name` at `path` ("module:Class") before the first look-up; a taken name is refused."""
        with _LOCK:
            if self._is_frozen:
                raise InputError(
                    sentence(f"registry {self.room!r} is frozen", do="add names before the first look-up")
                )
            if name in self._paths and self._paths[name] != path:
                raise InputError(
                    sentence(f"registry {self.room!r}: {name!r} is taken by {self._paths[name]!r}", got=path)
                )
            if path.count(":") != 1:
                raise InputError(
                    sentence(f"registry {self.room!r}: {name!r}", allowed="'module:Class'", got=path)
                )
            self._paths[name] = path

    def get(self, name: str) -> type:
        """Return the class called `name`; raises `UnknownNameError` with the nearest names."""
        with _LOCK:
            self._freeze()
            if name not in self._paths:
                raise UnknownNameError(
                    sentence(f"no {self.room} entry is called {name!r}", do=did_you_mean(name, self._paths))
                )
            if name not in self._loaded:
                module, attribute = self._paths[name].split(":")
                self._loaded[name] = getattr(importlib.import_module(module), attribute)
            return self._loaded[name]

    def name_of(self, cls: type) -> str:
        """Return the name under which `cls` stands; raises `UnknownNameError` if it does not."""
        path = f"{cls.__module__}:{cls.__qualname__}"
        self._freeze()
        for name, known in self._paths.items():
            if known == path or self._loaded.get(name) is cls:
                return name
        for name in self._paths:
            if self.get(name) is cls:
                return name
        raise UnknownNameError(
            sentence(
                f"the class {path!r} has no name in the room {self.room!r}",
                do=f"add it to the room's table or as an entry point of the group 'turnout.{self.room}'",
            )
        )

    def path(self, name: str) -> str:
        """Return the "module:Class" of `name` without importing it."""
        self._freeze()
        if name not in self._paths:
            raise UnknownNameError(
                sentence(f"no {self.room} entry is called {name!r}", do=did_you_mean(name, self._paths))
            )
        return self._paths[name]

    def __iter__(self) -> Iterator[str]:
        self._freeze()
        return iter(sorted(self._paths))

    def __contains__(self, name: object) -> bool:
        self._freeze()
        return name in self._paths

    def __len__(self) -> int:
        self._freeze()
        return len(self._paths)

    def _freeze(self) -> None:
        with _LOCK:
            if self._is_frozen:
                return
            for point in entry_points(group=f"turnout.{self.room}"):
                self.add(point.name, point.value)
            self._is_frozen = True


def find_registry(room: str) -> Registry:
    """Return the registry of a room by name; the room is imported here, so that core imports none."""
    rooms = ("features", "policies", "dispatch", "datasets", "nn", "routers", "online", "sequential")
    if room not in rooms:
        raise UnknownNameError(sentence(f"no room is called {room!r}", do=did_you_mean(room, rooms)))
    registry: Registry = importlib.import_module(f"turnout.{room}").registry
    return registry
