"""The ONNX encoder names its extra, its missing files, and leaves padding out of the mean."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.features.corpora import as_queries
from turnout.core.errors import InputError, MissingExtraError
from turnout.features import OnnxEmbedder
from turnout.features.onnx import pool

IS_INSTALLED = all(importlib.util.find_spec(name) is not None for name in ("onnxruntime", "tokenizers"))


@pytest.mark.skipif(IS_INSTALLED, reason="the extra `onnx` is installed")
def test_the_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"turnout\[onnx\]"):
        OnnxEmbedder(folder=str(tmp_path)).embed(as_queries(["one"]))


@pytest.mark.skipif(not IS_INSTALLED, reason="the extra `onnx` is not installed")
def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.onnx"):
        OnnxEmbedder(folder=str(tmp_path)).embed(as_queries(["one"]))


def test_mean_pooling_leaves_the_padding_out() -> None:
    output = np.array([[[1.0, 0.0], [3.0, 2.0], [99.0, 99.0]]], np.float32)
    mask_QT = np.array([[1, 1, 0]])
    np.testing.assert_allclose(pool(output, mask_QT, "mean"), [[2.0, 1.0]])
    np.testing.assert_allclose(pool(output, mask_QT, "first"), [[1.0, 0.0]])
    np.testing.assert_allclose(pool(output[:, 0], mask_QT, "mean"), [[1.0, 0.0]])
