"""A joined vector's cosine is the weighted mean of its parts'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.features.corpora import real_queries
from turnout.core import artifact
from turnout.core.errors import InputError
from turnout.features import JoinedEmbedder, SignalsEmbedder, TextEmbedder


def test_cosines_are_weighted_means() -> None:
    queries = real_queries(50)
    small, large = TextEmbedder(num_features=4).fit(queries), TextEmbedder(num_features=32).fit(queries)
    joined = JoinedEmbedder(embedders=(small, large), weights=(1.0, 2.0)).fit(queries)
    x_QF = joined.embed(queries)
    assert x_QF.shape == (50, 36)
    expected = sum(w * e.embed(queries) @ e.embed(queries).T for w, e in ((0.2, small), (0.8, large)))
    np.testing.assert_allclose(x_QF @ x_QF.T, expected, atol=1e-5)


def test_a_fitted_part_is_shared_and_an_unfitted_one_is_not() -> None:
    queries = real_queries(30)
    fitted, fresh = TextEmbedder(num_features=4).fit(queries), SignalsEmbedder()
    joined = JoinedEmbedder(embedders=(fitted, fresh)).fit(queries)
    assert joined.embedders_[0] is fitted
    assert not fresh.is_fitted
    copy = joined.clone()
    assert not copy.is_fitted
    assert copy.fit(queries).embedders_[0] is fitted


def test_an_artifact_gives_the_same_vectors(tmp_path: Path) -> None:
    queries = real_queries(30)
    joined = JoinedEmbedder(embedders=(TextEmbedder(num_features=4).fit(queries), SignalsEmbedder())).fit(
        queries
    )
    artifact.save(joined, tmp_path)
    loaded = artifact.load(tmp_path)
    assert isinstance(loaded, JoinedEmbedder)
    np.testing.assert_array_equal(loaded.embed(queries), joined.embed(queries))


@pytest.mark.parametrize(
    "arguments",
    [
        {"embedders": ()},
        {"embedders": (SignalsEmbedder(),), "weights": (1.0, 2.0)},
        {"embedders": (SignalsEmbedder(),), "weights": (0.0,)},
        {"embedders": (SignalsEmbedder(),), "weights": (-1.0,)},
    ],
)
def test_parts_and_weights_must_fit(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match="JoinedEmbedder"):
        JoinedEmbedder(**arguments)  # type: ignore[arg-type]
