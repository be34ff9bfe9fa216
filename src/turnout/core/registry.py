"""This module turns names into classes: lazily, once, and with a useful word about a name it lacks.

Each room keeps one table, `name -> "module:Class"`. Third parties add to it through entry points of the
group `turnout.<room>`. A table freezes at its first look-up. An entry point that cannot be what it says, or
that takes a name, stops only who asks for that name, in a sentence with its package and what to do.
"""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from typing import Any, NoReturn, final

from turnout.core.errors import InputError, TurnoutError, UnknownNameError, did_you_mean, sentence

_LOCK = threading.RLock()


@final
class Registry:
    """The names of one room.

    Parameters
    ----------
    room:
        Its name; third parties add to the entry points `turnout.<room>`.
    table:
        The names of its own classes.
    kind:
        The contract that a class of a third party must keep; None for any class.
    reserved:
        Names with a meaning of their own, which no entry point may have.

    Example
    -------
    >>> registry = Registry("demo", {"ordered": "collections:OrderedDict"})
    >>> registry.get("ordered").__name__
    'OrderedDict'
    """

    def __init__(
        self,
        room: str,
        table: Mapping[str, str],
        *,
        kind: type | None = None,
        reserved: Collection[str] = (),
    ) -> None:
        self.room = room
        self.kind = kind
        self.reserved = frozenset(reserved)
        self._paths: dict[str, str] = {}
        self._packages: dict[str, str] = {}
        self._refused: dict[str, str] = {}
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

    def get(self, name: str, *, is_stored: bool = False) -> type:
        """Return the class called `name`.

        `is_stored` says that an artifact holds the name: it was written when the name had one meaning, the
        room's own. Raises `UnknownNameError` with the nearest names, and `InputError` for a name that two
        packages claim, and for an entry point that cannot be loaded or is no class of the room's kind.
        """
        with _LOCK:
            self._freeze()
            if not is_stored:
                self.require_one_meaning(name)
            if name not in self._paths:
                self._unknown(name)
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def make(self, name: str) -> Any:
        """Return an object of the class called `name`, made without arguments.

        Raises what `get` raises, and `InputError` where the constructor wants an argument or fails.
        """
        cls = self.get(name)
        if missing := sorted(getattr(cls, "__abstractmethods__", ())):
            raise InputError(sentence(f"{self.origin(cls)} does not implement {', '.join(missing)}"))
        parameters = inspect.signature(cls).parameters.values()
        spread = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        wanted = [p.name for p in parameters if p.default is p.empty and p.kind not in spread]
        if wanted:
            raise InputError(
                sentence(
                    f"{self.origin(cls)} is asked for by name, and its constructor wants {', '.join(wanted)}",
                    allowed="a default for every parameter",
                    do="give each a default, or make the object in Python and hand it over",
                )
            )
        try:
            return cls()
        except TurnoutError:
            raise
        except Exception as error:
            if name not in self._packages:
                raise
            what = f"{self.origin(cls)} cannot be made: its constructor failed"
            raise InputError(sentence(what, got=error, do=_repair(self._packages[name]))) from error

    def origin(self, cls: type) -> str:
        """Return words for a class: its name, and the package of a third party that brought it."""
        path = f"{cls.__module__}:{cls.__qualname__}"
        for name, package in self._packages.items():
            if self._paths[name] == path or self._loaded.get(name) is cls:
                return _stranger(name, package, self._paths[name])
        return repr(path)

    def require_one_meaning(self, name: str) -> None:
        """Raise `InputError` for a name that an entry point takes although it has a meaning already."""
        self._freeze()
        if name in self._refused:
            raise InputError(self._refused[name])

    def name_of(self, cls: type) -> str:
        """Return the name under which `cls` stands; raises `UnknownNameError` if it does not."""
        path = f"{cls.__module__}:{cls.__qualname__}"
        self._freeze()
        for name, known in self._paths.items():
            if known == path or self._loaded.get(name) is cls:
                return name
        for name in self._paths:
            try:
                found = self.get(name, is_stored=True)
            except (TurnoutError, ImportError):
                continue  # a part that is not installed, or an entry point that is broken, is not this class
            if found is cls:
                return name
        raise UnknownNameError(
            sentence(
                f"the class {path!r} has no name in the room {self.room!r}",
                do=f"add it to the room's table or as an entry point of the group 'turnout.{self.room}'",
            )
        )

    def path(self, name: str) -> str:
        """Return the "module:Class" of `name` without importing it."""
        self.require_one_meaning(name)
        if name not in self._paths:
            self._unknown(name)
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
                self._add_stranger(point)
            self._is_frozen = True

    def _add_stranger(self, point: EntryPoint) -> None:
        name, package = point.name, "unknown" if point.dist is None else point.dist.name
        known = self._paths.get(name)
        if known == point.value:
            return
        mine = _stranger(name, package, point.value)
        if name in self.reserved:
            self._refused[name] = sentence(
                f"{mine} has a name with a meaning of its own", do=_rename(package)
            )
        elif known is not None:
            owner = self._packages.get(name)
            whose = "turnout" if owner is None else f"the package {owner!r}"
            what = f"{mine} has a name that is taken by {known!r} of {whose}"
            self._refused[name] = sentence(what, do=_rename(package))
        elif point.value.count(":") != 1:
            self._refused[name] = sentence(mine, allowed="'module:Class'", do=_repair(package))
        else:
            self._paths[name], self._packages[name] = point.value, package

    def _load(self, name: str) -> type:
        module, attribute = self._paths[name].split(":")
        package = self._packages.get(name)
        if package is None:
            own: type = getattr(importlib.import_module(module), attribute)
            return own
        where = _stranger(name, package, self._paths[name])
        try:
            found = attrgetter(attribute)(importlib.import_module(module))
        except TurnoutError:
            raise
        except Exception as error:
            raise InputError(sentence(f"{where} cannot be loaded", got=error, do=_repair(package))) from error
        if isinstance(found, type) and issubclass(found, self.kind or object):
            return found
        kind = "" if self.kind is None else f" that inherits {self.kind.__module__}.{self.kind.__qualname__}"
        raise InputError(sentence(where, allowed=f"a class{kind}", got=found, do=_repair(package)))

    def _unknown(self, name: str) -> NoReturn:
        raise UnknownNameError(
            sentence(f"no {self.room} entry is called {name!r}", do=did_you_mean(name, self._paths))
        )


def _stranger(name: str, package: str, path: str) -> str:
    return f"the entry point {name!r} of the package {package!r} ({path!r})"


def _rename(package: str) -> str:
    return f"give it another name in {package!r}, or uninstall that package"


def _repair(package: str) -> str:
    return f"repair it in {package!r}, or uninstall that package"


def find_registry(room: str) -> Registry:
    """Return the registry of a room by name; the room is imported here, so that core imports none."""
    rooms = ("features", "policies", "dispatch", "datasets", "nn", "routers", "online", "sequential")
    if room not in rooms:
        raise UnknownNameError(sentence(f"no room is called {room!r}", do=did_you_mean(room, rooms)))
    registry: Registry = importlib.import_module(f"turnout.{room}").registry
    return registry
