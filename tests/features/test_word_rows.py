"""The vector of a text against the definition, counted by hand in dictionaries."""

from __future__ import annotations

import copy
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from tests.features.corpora import real_queries
from turnout.features import TextEmbedder, word_memory
from turnout.features.tokens import grams, split
from turnout.features.word_memory import Memory
from turnout.features.word_rows import WordRows, rows_from_arrays


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
    rows.add_all(x_QF, [" ".join(tokens)])
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
        rows.add_all(x_QF, [" ".join(tokens) for tokens in texts[:number]])
        for x_F, tokens in zip(x_QF, texts[:number], strict=True):
            np.testing.assert_array_equal(x_F, vector(rows, tokens))


SPACES = (
    "a\nb",
    "a\u2003b\u00a0c",
    "a\x1cb c",
    "a\x1fb\u00e9",
    "x_y-z 3.14,2",
    "\u5929\u6c14 a\u5929b",
    "\u03a3\u039f\u03a3 a",
)


@pytest.mark.parametrize("text", SPACES)
def test_a_text_is_read_piece_by_piece_as_it_is_at_once(rows: WordRows, text: str) -> None:
    memory = Memory(rows)
    for _ in range(2):
        codes = np.frombuffer(memory.read(text), np.int32).tolist()
        names = {code: token for token, code in memory._codes.items()} | dict(enumerate(rows.words))
        assert [names[code] for code in codes] == split(text)


def test_a_memory_is_bounded_and_one_that_begins_anew_changes_no_vector(
    rows: WordRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [
        f"{query.words} zq{number} zq{number + 1} zq{number}"
        for number, query in enumerate(real_queries(150))
    ]
    before = np.zeros((len(texts), rows.num_features), np.float32)
    rows.add_all(before, texts)
    memories = []
    monkeypatch.setattr(word_memory, "MOST_WORDS", 20)
    for _ in range(2):
        after = np.zeros_like(before)
        rows.add_all(after, texts)
        np.testing.assert_array_equal(after, before)
        memories.append(rows._memory)
        assert len(rows._memory._codes) < 100
    assert memories[0] is not memories[1]
    monkeypatch.setattr(word_memory, "_MOST_LETTERS", 1000)
    rows.add_all(np.zeros_like(before[:1]), ["y" * 2000])
    assert not rows._memory._codes
    long = "y" * 3000
    np.testing.assert_allclose(vector(rows, [long, long]), defined(rows, [long, long]), atol=2e-6)
    assert len(rows._memory) < word_memory.MOST_PIECES


def test_threads_read_at_once(rows: WordRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_memory, "MOST_WORDS", 30)
    texts = [f"{query.words} zq{number}" for number, query in enumerate(real_queries(100))]
    expected = np.zeros((len(texts), rows.num_features), np.float32)
    rows.add_all(expected, texts)

    def read(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(texts))
        for _ in range(3):
            x_QF = np.zeros((len(texts), rows.num_features), np.float32)
            rows.add_all(x_QF, [texts[i] for i in order])
            np.testing.assert_array_equal(x_QF, expected[order])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(8)))


def test_a_copy_has_forgotten_what_was_read_and_reads_the_same(rows: WordRows) -> None:
    tokens = ["zzyx", rows.words[3], "unknowable", "zzyx"]
    expected = vector(rows, tokens)
    copied = copy.deepcopy(rows)
    assert not copied._memory
    assert copied._memory._lexicon is copied
    np.testing.assert_array_equal(vector(copied, tokens), expected)


def test_rows_read_back_are_the_same_to_the_bit(rows: WordRows) -> None:
    again = rows_from_arrays(rows.arrays(), rows.gram_sizes)
    np.testing.assert_array_equal(again.table_VF, rows.table_VF)
    np.testing.assert_array_equal(again.gram_table_GF, rows.gram_table_GF)
    assert again.arrays()["table"].dtype == np.int8


def test_rows_of_half_precision_from_an_older_artifact_stay_as_they_were(rows: WordRows) -> None:
    arrays = {name: array for name, array in rows.arrays().items() if not name.endswith("_scale")}
    table_VF = np.random.default_rng(0).normal(size=rows.table_VF.shape).astype(np.float16)
    arrays |= {"table": table_VF, "gram_table": rows.gram_table_GF.astype(np.float16)}
    old = rows_from_arrays(arrays, rows.gram_sizes)
    np.testing.assert_array_equal(old.table_VF, table_VF.astype(np.float32))
    np.testing.assert_array_equal(old.arrays()["table"], table_VF)
