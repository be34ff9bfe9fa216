"""This module leaves the neural routers untested where torch, an extra, is not installed."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = ["test_*.py"] if importlib.util.find_spec("torch") is None else []
