"""This module saves and loads learned objects: a JSON manifest and one safetensors file, never pickle.

An artifact is a folder with `manifest.json` and `tensors.safetensors`. The manifest names classes by
room and registry name, so loading can only build classes that a registry knows. Both files carry a
checksum, so damage is found before it is believed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from turnout.core.budget import Budget, Goal
from turnout.core.candidate import Candidate, candidate_from_dict
from turnout.core.contracts import Configured, State
from turnout.core.errors import ArtifactError, ArtifactVersionError, TurnoutError, sentence
from turnout.core.registry import find_registry

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
"""Version of the layout; a reader refuses newer ones and reads older ones."""

_FILES = ("manifest.json", "tensors.safetensors")


def save(thing: Configured, folder: str | Path, *, about: Mapping[str, object] | None = None) -> Path:
    """Write `thing` into `folder` (made if missing) and return it; `about` is kept in the manifest."""
    from safetensors.numpy import save as to_bytes

    thing.require_fitted("save")
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise ArtifactError(sentence(f"{str(path)!r} is a file", allowed="a folder for the artifact"))
    arrays: dict[str, NDArray[Any]] = {}
    tree = _encode_object(thing, "", arrays)
    tensors = to_bytes({name: np.asarray(array, order="C") for name, array in arrays.items()})
    body = {
        "format": FORMAT,
        "about": dict(about or {}),
        "object": tree,
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
    }
    path.mkdir(parents=True, exist_ok=True)
    (path / _FILES[1]).write_bytes(tensors)
    manifest = {**body, "manifest_sha256": _checksum(body)}
    (path / _FILES[0]).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
    return path


def load(folder: str | Path) -> Configured:
    """Read an artifact; raises `ArtifactError` when it is damaged, of another version, or not one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    path = Path(folder)
    manifest = read_manifest(path)
    tensors = _read(path / _FILES[1])
    if hashlib.sha256(tensors).hexdigest() != manifest["tensors_sha256"]:
        raise _damaged(path / _FILES[1], "its checksum differs from the manifest's")
    try:
        arrays = from_bytes(tensors)
        return _decode_object(manifest["object"], "", arrays)
    except (SafetensorError, AttributeError, KeyError, TypeError) as error:
        raise _damaged(path, repr(error)) from error


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Return the manifest of an artifact after checking its version and checksum."""
    path = Path(folder) / _FILES[0]
    content = _read(path)
    try:
        manifest = json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise _damaged(path, "it is no JSON object with a member 'format'")
    version = manifest["format"]
    if not isinstance(version, int) or not 1 <= version <= FORMAT:
        raise ArtifactVersionError(
            sentence(
                f"{str(path)!r} has another format version",
                allowed=f"1 to {FORMAT}",
                got=version,
                do="fit it again, or use the turnout that wrote it",
            )
        )
    stated = manifest.pop("manifest_sha256", None)
    if stated != _checksum(manifest):
        raise _damaged(path, "its checksum does not match its content")
    return dict(manifest)


def is_artifact(folder: str | Path) -> bool:
    """Whether `folder` has the two files of an artifact."""
    return all((Path(folder) / name).is_file() for name in _FILES)


def _encode_object(thing: Configured, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    # A setting may be an object that has learned nothing yet, such as the embedder a router copies and fits.
    state = thing.state() if thing.is_fitted else State()
    for name, array in state.arrays.items():
        key = f"{prefix}{name}"
        if key in arrays:
            raise ArtifactError(
                sentence(f"{type(thing).__name__}.state: two arrays would be stored as {key!r}")
            )
        arrays[key] = np.asarray(array)
    return {
        "room": thing.room,
        "name": find_registry(thing.room).name_of(type(thing)),
        "config": {
            name: _encode_value(value, f"{prefix}{name}.", arrays) for name, value in thing.config().items()
        },
        "is_fitted": thing.is_fitted,
        "arrays": sorted(state.arrays),
        "values": dict(state.values),
        "parts": {
            name: _encode_object(part, f"{prefix}{name}/", arrays) for name, part in state.parts.items()
        },
    }


def _decode_object(tree: Mapping[str, Any], prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Configured:
    cls = find_registry(tree["room"]).get(tree["name"], is_stored=True)
    config = {
        name: _decode_value(value, f"{prefix}{name}.", arrays) for name, value in tree["config"].items()
    }
    thing: Configured = cls(**config)
    if not tree["is_fitted"]:
        return thing
    thing.restore(
        State(
            arrays={name: arrays[f"{prefix}{name}"] for name in tree["arrays"]},
            values=tree["values"],
            parts={
                name: _decode_object(part, f"{prefix}{name}/", arrays) for name, part in tree["parts"].items()
            },
        )
    )
    return thing


def _encode_value(value: object, prefix: str, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, Configured):
        return {"$object": _encode_object(value, prefix, arrays)}
    if isinstance(value, Goal | Budget):
        return {f"${type(value).__name__}": dataclasses.asdict(value)}
    if isinstance(value, Candidate):
        return {"$Candidate": value.to_dict()}
    if isinstance(value, tuple | list):
        # The position is part of the prefix: two fitted objects in one tuple must not share array names.
        return {"$tuple": [_encode_value(x, f"{prefix}{i}.", arrays) for i, x in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ArtifactError(
        sentence(
            f"the setting {prefix.rstrip('.')!r} cannot be stored",
            allowed="numbers, strings, None, tuples and turnout's own objects",
            got=type(value).__name__,
        )
    )


def _decode_value(value: Any, prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if not isinstance(value, dict):
        return value
    kind, content = next(iter(value.items()))
    if kind == "$object":
        return _decode_object(content, prefix, arrays)
    if kind == "$tuple":
        return tuple(_decode_value(item, f"{prefix}{i}.", arrays) for i, item in enumerate(content))
    if kind == "$Candidate":
        return candidate_from_dict(content)
    known: dict[str, type[Goal] | type[Budget]] = {"$Goal": Goal, "$Budget": Budget}
    if kind not in known:
        raise ArtifactError(sentence("the manifest holds an unknown kind of setting", got=kind))
    return known[kind](**content)


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            sentence(
                f"no artifact at {str(path.parent)!r}: {path.name} cannot be read",
                got=error.strerror,
                do="name the folder that `turnout fit` wrote",
            )
        ) from error


def _damaged(path: Path, got: str) -> TurnoutError:
    return ArtifactError(sentence(f"the artifact {str(path)!r} is damaged", got=got, do="fit it again"))
