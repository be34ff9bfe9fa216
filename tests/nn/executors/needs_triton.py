"""This module skips a file of tests where no kernel of Triton can run."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch


def need_triton() -> None:
    """Skip the rest of the file without Triton, or with neither a GPU nor its interpreter."""
    is_there = importlib.util.find_spec("triton") is not None
    if not is_there or not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
        pytest.skip("needs Triton, and a GPU or its interpreter", allow_module_level=True)
