"""This module loads the artifacts that settings name, so that an error says which setting it was."""

from __future__ import annotations

from turnout.core import artifact
from turnout.core.errors import ArtifactError


def load_named(folder: str, setting: str) -> object:
    """Load an artifact; raises `ArtifactError` that names the setting."""
    try:
        return artifact.load(folder)
    except ArtifactError as error:
        raise type(error)(f"the setting {setting!r}: {error}") from error
