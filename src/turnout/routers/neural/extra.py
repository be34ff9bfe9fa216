"""This module says what to install where torch is missing."""

from __future__ import annotations

from turnout.core.errors import missing_extra


def require_torch(feature: str) -> None:
    """Raise `MissingExtraError` where torch is not installed."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise missing_extra("torch", feature=feature, extra="nn") from error
