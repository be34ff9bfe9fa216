"""The vector of a text against the definition, counted by hand in dictionaries."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from tests.features.corpora import real_queries
from turnout.features import TextEmbedder
from turnout.features.tokens import grams, split
from turnout.features.word_rows import WordRows


@pytest.fixture(scope="module")
def rows() -> WordRows:
    found = TextEmbedder(num_features=16, gram_sizes=(3, 4)).fit(real_queries(200)).rows_
    assert found is not None
    assert found.pairs.size > 50
    return found


def defined(rows: WordRows, tokens: list[str]) -> np.ndarray:
    """Return the vector of `tokens` in float64, row after row."""
    rank = {word: i for i, word in enumerate(rows.words)}
    pair = {key: len(rank) + i for i, key in enumerate(rows.pairs.tolist())}
    gram = {text: i for i, text in enumerate(rows.grams)}
    count = Counter(rank[token] for token in tokens if token in rank)
    for left, right in pairwise(tokens):
        if left in rank and right in rank:
            key = rank[left] * (len(rank) + 1) + rank[right] + 1
            count.update([pair[key]] if key in pair else [])
    out = np.zeros(rows.num_features)
    for row, number in count.items():
        out += (1.0 + math.log(min(number, 255))) * rows.table_VF[row].astype(float)
    for token, number in Counter(token for token in tokens if token not in rank).items():
        which = [gram[text] for text in grams(token, *rows.gram_sizes) if text in gram]
        idf = rows.gram_idf[which].astype(float)
        if which:
            share = idf * rows.unknown_idf / np.linalg.norm(idf)
            out += (1.0 + math.log(min(number, 255))) * (share @ rows.gram_table_GF[which].astype(float))
    return out / (np.linalg.norm(out) or 1.0)


def vector(rows: WordRows, tokens: list[str]) -> np.ndarray:
    x_QF = np.zeros((1, rows.num_features), np.float32)
    rows.add_all(x_QF, [tokens])
    return x_QF[0]


@pytest.mark.parametrize("query", range(0, 200, 20))
def test_a_vector_is_as_defined(rows: WordRows, query: int) -> None:
    tokens = split(real_queries(200)[query].words)
    tokens[3:3] = ["zzyx", "unknowable", "zzyx"]
    np.testing.assert_allclose(vector(rows, tokens), defined(rows, tokens), atol=2e-6)


@pytest.mark.parametrize("length", [0, 1, 2])
def test_the_shortest_texts_have_pairs_or_none(rows: WordRows, length: int) -> None:
    first, last = rows.words[0], rows.words[-1]
    for tokens in ([first, last][:length], [last, last][:length], ["zzyx", first][:length]):
        np.testing.assert_allclose(vector(rows, tokens), defined(rows, tokens), atol=2e-6)


def test_known_pairs_are_found_from_the_first_to_the_last(rows: WordRows) -> None:
    step, keys = len(rows.words) + 1, rows.pairs.tolist()
    for row in (*range(0, len(keys), 40), len(keys) - 1):
        left, right = divmod(keys[row] - 1, step)
        tokens = [rows.words[left], rows.words[right]]
        np.testing.assert_allclose(vector(rows, tokens), defined(rows, tokens), atol=2e-6, err_msg=str(row))


def test_repetition_is_damped_and_cut(rows: WordRows) -> None:
    tokens = [rows.words[0], rows.words[5]] * 300 + ["zzyx"] * 300
    np.testing.assert_allclose(vector(rows, tokens), defined(rows, tokens), atol=2e-6)


def test_texts_together_have_the_vectors_that_each_has_alone(rows: WordRows) -> None:
    texts = [split(query.words) for query in real_queries(150)]
    texts[3:3] = [[], [rows.words[0]], ["zzyx"], []]
    texts.append([])
    for number in (0, 1, 2, len(texts)):
        x_QF = np.zeros((number, rows.num_features), np.float32)
        rows.add_all(x_QF, texts[:number])
        for x_F, tokens in zip(x_QF, texts[:number], strict=True):
            np.testing.assert_array_equal(x_F, vector(rows, tokens))
