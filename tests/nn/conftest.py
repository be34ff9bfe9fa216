"""This module lets the tests of the extra `nn` wait where torch is not installed, and keeps them steady."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest

if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
    collect_ignore_glob = ["*"]

# Without it cuBLAS refuses to be deterministic; it is read when the first product is made.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(autouse=True)
def steady() -> Iterator[None]:
    """One thread, and the same random numbers whatever test ran before."""
    import torch

    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
