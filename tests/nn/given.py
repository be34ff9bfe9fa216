"""This module hands a cache to a model under the name that the installed release has for it."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import LlamaForCausalLM

NAME = "cache" if "cache" in inspect.signature(LlamaForCausalLM.forward).parameters else "past_key_values"


def given(cache: Any) -> dict[str, Any]:
    """Return the keyword argument of a cache."""
    return {NAME: cache}
