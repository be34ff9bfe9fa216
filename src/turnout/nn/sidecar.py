"""This module keeps what turnout adds to a checkpoint in a file beside it, never inside it.

`turnout.<kind>.json` holds the configuration and the SHA-256 of `turnout.<kind>.safetensors`, which holds the
tensors. The base checkpoint
stays what it was, so the stock library loads it without a word about unknown weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from turnout.core.errors import ArtifactError, sentence

VERSION = 1


def save_sidecar(
    folder: str | Path, kind: str, *, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Path:
    """Write the two files of `kind` into `folder` (made if it is not there); return the JSON's path."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    manifest = place / f"turnout.{kind}.json"
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    stored = place / f"turnout.{kind}.safetensors"
    save_file(contiguous, stored)
    content = {
        "turnout": VERSION,
        "kind": kind,
        "config": dict(config),
        "tensors": sorted(tensors),
        "sha256": _digest(stored),
    }
    manifest.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return manifest


def load_sidecar(folder: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return (config, tensors) of `kind` from `folder`; raises `ArtifactError` that names what is wrong."""
    manifest = Path(folder) / f"turnout.{kind}.json"
    stored = manifest.with_suffix(".safetensors")
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        tensors = load_file(stored)
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(
            sentence(
                f"no readable {kind!r} beside the checkpoint in {str(folder)!r}",
                allowed=f"turnout.{kind}.json and turnout.{kind}.safetensors",
                got=f"{type(error).__name__}: {error}",
            )
        ) from error
    if not isinstance(content, dict) or content.get("turnout") != VERSION or content.get("kind") != kind:
        found = content.get("turnout") if isinstance(content, dict) else content
        raise ArtifactError(
            sentence(f"{manifest}: its version", allowed=VERSION, got=found, do="save it again")
        )
    if sorted(tensors) != content.get("tensors"):
        raise ArtifactError(
            sentence(f"{manifest}: its tensors", allowed=content.get("tensors"), got=sorted(tensors))
        )
    if _digest(stored) != content.get("sha256"):
        raise ArtifactError(
            sentence(
                f"{stored} is damaged, or of another {manifest.name}",
                allowed=f"the bytes with SHA-256 {content.get('sha256')}",
                got=_digest(stored),
                do="save it again, or copy both files anew",
            )
        )
    return content["config"], tensors


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
