"""The text embedder: near texts are near, odd texts are sane, and every process gives the same numbers."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.features.corpora import ODD_TEXTS, as_queries, real_queries
from turnout.core import artifact
from turnout.core.errors import InputError, NotFittedError
from turnout.core.query import Query
from turnout.features import TextEmbedder


@pytest.fixture(scope="module")
def embedder() -> TextEmbedder:
    return TextEmbedder(num_features=64).fit(real_queries())


def cosine(embedder: TextEmbedder, left: str, right: str) -> float:
    x_QF = embedder.embed(as_queries([left, right]))
    return float(x_QF[0] @ x_QF[1])


def test_rows_have_length_one(embedder: TextEmbedder) -> None:
    x_QF = embedder.embed(real_queries())
    assert x_QF.dtype == np.float32
    assert x_QF.shape == (400, 64)
    np.testing.assert_allclose(np.linalg.norm(x_QF, axis=1), 1.0, atol=1e-5)


def test_a_vector_does_not_depend_on_its_batch(embedder: TextEmbedder) -> None:
    queries = real_queries()[:20]
    one_by_one = np.concatenate([embedder.embed([query]) for query in queries])
    np.testing.assert_array_equal(embedder.embed(queries), one_by_one)


def test_a_misspelt_word_stays_near_through_its_ngrams() -> None:
    texts = ["the photosynthesis of plants", "the parliament of spain", "photosynthesis in plants"] * 4
    with_grams = TextEmbedder(min_documents=1).fit(as_queries(texts))
    assert cosine(with_grams, "photosynthesys", "photosynthesis") > 0.5
    assert cosine(with_grams, "photosynthesys", "parliament") < 0.2
    without = TextEmbedder(min_documents=1, gram_sizes=(0, 0)).fit(as_queries(texts))
    assert not without.embed(as_queries(["photosynthesys"])).any()


def test_a_script_without_spaces_is_read_by_character_pairs() -> None:
    texts = [
        "\u5929\u6c14\u5f88\u597d",
        "\u5929\u6c14\u4e0d\u597d",
        "\u6570\u5b66\u95ee\u9898",
        "\u6570\u5b66\u8003\u8bd5",
    ]
    embedder = TextEmbedder(min_documents=1).fit(as_queries(texts))
    assert cosine(embedder, "\u5929\u6c14", texts[0]) > cosine(embedder, "\u5929\u6c14", texts[2]) + 0.2


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_an_odd_text_has_a_finite_vector(embedder: TextEmbedder, text: str | None) -> None:
    x_QF = embedder.embed([Query(id="odd", text=text)])
    assert np.isfinite(x_QF).all()
    assert np.linalg.norm(x_QF) < 1.0 + 1e-5


@pytest.mark.parametrize("texts", [[""], [None, None], ["same"] * 5, ["one text alone"], list(ODD_TEXTS)])
def test_any_corpus_can_be_learned(texts: list[str | None]) -> None:
    embedder = TextEmbedder(num_features=8).fit(as_queries(texts))
    x_QF = embedder.embed(as_queries([*texts, "anything else"]))
    assert np.isfinite(x_QF).all()
    assert x_QF.shape[1] >= 1


def test_a_constant_corpus_gives_one_vector() -> None:
    queries = as_queries(["same words"] * 5)
    x_QF = TextEmbedder().fit(queries).embed(queries)
    np.testing.assert_array_equal(x_QF, np.broadcast_to(x_QF[0], x_QF.shape))
    assert np.linalg.norm(x_QF[0]) == pytest.approx(1.0)


def test_no_corpus_gives_zero_vectors() -> None:
    assert not TextEmbedder().fit([]).embed(as_queries(["anything"])).any()


def test_a_huge_prompt_costs_no_more_than_its_limit(embedder: TextEmbedder) -> None:
    huge = Query(id="huge", text="word and word " * 80_000)
    started = time.process_time()
    embedder.embed([huge])
    # Two hundred times the usual prompt; a bound that only an unbounded reader breaks.
    assert time.process_time() - started < 1.0
    x_QF = embedder.embed([huge, Query(id="end", text=huge.words[:4_000] + " " + huge.words[-4_000:])])
    np.testing.assert_array_equal(x_QF[0], x_QF[1])


def test_the_order_of_the_corpus_does_not_matter() -> None:
    queries = list(real_queries()[:200])
    forward, backward = (
        TextEmbedder(num_features=16, sample_rows=50).fit(q) for q in (queries, queries[::-1])
    )
    np.testing.assert_array_equal(forward.embed(queries), backward.embed(queries))


def test_embedding_does_not_learn(embedder: TextEmbedder) -> None:
    before = embedder.embed(real_queries()[:5])
    embedder.embed(as_queries(["quixotic zebras " * 50, "never seen wordlings"]))
    np.testing.assert_array_equal(before, embedder.embed(real_queries()[:5]))


def test_an_artifact_gives_the_same_vectors(embedder: TextEmbedder, tmp_path: Path) -> None:
    artifact.save(embedder, tmp_path)
    queries = [*real_queries()[:20], *as_queries(ODD_TEXTS)]
    loaded = artifact.load(tmp_path)
    assert isinstance(loaded, TextEmbedder)
    np.testing.assert_array_equal(loaded.embed(queries), embedder.embed(queries))


def test_another_process_gives_the_same_vectors() -> None:
    program = (
        "from tests.features.corpora import real_queries\n"
        "from turnout.features import TextEmbedder\n"
        "q = real_queries(60)\n"
        "print(TextEmbedder(num_features=8).fit(q).embed(q).tobytes().hex())\n"
    )
    # The hash of a string differs between these two, as it does between any two runs.
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1", "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1
    assert len(found.pop()) > 100


def test_a_vector_is_asked_after_fit() -> None:
    with pytest.raises(NotFittedError, match="call fit first"):
        TextEmbedder().embed(real_queries()[:1])


@pytest.mark.parametrize(
    "arguments", [{"num_features": 0}, {"char_weight": 1.5}, {"gram_sizes": (4, 3)}, {"max_chars": -1}]
)
def test_a_setting_out_of_range_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match="TextEmbedder"):
        TextEmbedder(**arguments)  # type: ignore[arg-type]
