"""The sentence encoder names its extra, and loads nothing before it is asked."""

from __future__ import annotations

import importlib.util

import pytest

from tests.features.corpora import as_queries
from turnout.core.errors import MissingExtraError
from turnout.features import SentenceEmbedder


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is not None, reason="the extra `sentence` is installed"
)
def test_the_extra_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"turnout\[sentence\]"):
        SentenceEmbedder().embed(as_queries(["one"]))


def test_nothing_is_loaded_before_it_is_asked() -> None:
    assert SentenceEmbedder(model="no/such-model").is_fitted
