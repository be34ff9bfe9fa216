"""This module learns the rows of the text embedder from a corpus: vocabulary, idf, projection."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from turnout.core.rng import make_rng
from turnout.features.sparse import Array, Product, Rows, right_directions, rows_from
from turnout.features.tokens import grams, split
from turnout.features.vocabulary import (
    Corpus,
    Floats,
    Ints,
    count_cells,
    count_grams,
    inverse_frequency,
    most_frequent,
    pair_tokens,
    read_corpus,
)
from turnout.features.word_rows import WordRows


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to learn; the fields mean what they mean in `TextEmbedder`."""

    num_features: int
    max_words: int
    max_pairs: int
    max_grams: int
    min_documents: int
    gram_sizes: tuple[int, int]
    char_weight: float
    pair_weight: float
    sample_rows: int
    power: float
    seed: int


@dataclass(frozen=True, slots=True)
class _Lexicon:
    """The kept vocabulary with its idf, and the cells of the document matrix."""

    all_words: list[str]
    kept: Ints
    """Indices into `all_words`; the rank of a kept word is its position here."""
    pairs: Ints
    grams: list[str]
    word_idf: Floats
    """Of all words; a word that was not kept has the idf of an unknown one."""
    pair_idf: Floats
    gram_idf: Floats
    unknown_idf: float
    document: Ints
    column: Ints
    """A word of `all_words`, or `len(all_words)` plus a pair."""
    count: Ints
    num_documents: int


def learn_rows(texts: list[str], plan: Plan) -> WordRows:
    """Return the rows for a corpus; `texts` stand in an order that does not depend on the caller's."""
    lexicon = _count(read_corpus([split(text) for text in texts]), plan)
    documents = _document_matrix(lexicon).take(np.arange(min(plan.sample_rows, lexicon.num_documents)))
    sample, used = documents.used_columns()
    words_in_grams = _word_matrix(lexicon, plan, np.union1d(used, lexicon.kept))
    projection, sigma = right_directions(
        Product(sample, words_in_grams.take(used)),
        num=plan.num_features,
        num_powers=1,
        rng=make_rng(plan.seed, "text"),
    )
    if not sigma.size:
        projection = np.zeros((projection.shape[0], 1), np.float32)
    elif plan.power > 0.0:
        projection = projection * (sigma / sigma[0]) ** -plan.power
    return _to_rows(lexicon, words_in_grams, projection, plan)


def _count(corpus: Corpus, plan: Plan) -> _Lexicon:
    num_documents, num_words = corpus.start.size - 1, len(corpus.words)
    document, word, count = count_cells(corpus.document, corpus.token, num_words)
    frequency = np.bincount(word, minlength=num_words)
    kept = most_frequent(frequency, plan.max_words, plan.min_documents)
    rank = np.full(num_words, -1, np.int64)
    rank[kept] = np.arange(kept.size)
    pairs, pair_frequency, pair_cells = _count_pairs(corpus, rank, kept.size, plan)
    all_grams, gram_frequency = count_grams(corpus.words, frequency, *plan.gram_sizes, num_documents)
    kept_grams = most_frequent(gram_frequency, plan.max_grams if plan.char_weight else 0, plan.min_documents)
    unknown_idf = math.log(1.0 + num_documents) + 1.0
    return _Lexicon(
        all_words=corpus.words,
        kept=kept,
        pairs=pairs,
        grams=[all_grams[i] for i in kept_grams],
        word_idf=np.where(rank >= 0, inverse_frequency(frequency, num_documents), unknown_idf),
        pair_idf=inverse_frequency(pair_frequency, num_documents) * plan.pair_weight,
        gram_idf=inverse_frequency(gram_frequency[kept_grams], num_documents),
        unknown_idf=unknown_idf,
        document=np.concatenate([document, pair_cells[0]]),
        column=np.concatenate([word, num_words + pair_cells[1]]),
        count=np.concatenate([count, pair_cells[2]]),
        num_documents=num_documents,
    )


def _count_pairs(
    corpus: Corpus, rank: Ints, num_words: int, plan: Plan
) -> tuple[Ints, Ints, tuple[Ints, Ints, Ints]]:
    """Return keys and frequencies of the kept pairs, and their (document, pair, count) cells."""
    document, key = pair_tokens(corpus, rank, num_words)
    keys, pair = np.unique(key, return_inverse=True)
    document, pair, count = count_cells(document, pair.astype(np.int64), keys.size)
    frequency = np.bincount(pair, minlength=keys.size)
    kept = most_frequent(frequency, plan.max_pairs if plan.pair_weight else 0, plan.min_documents)
    position = np.full(keys.size, -1, np.int64)
    position[kept] = np.arange(kept.size)
    stays = position[pair] >= 0
    return keys[kept], frequency[kept], (document[stays], position[pair][stays], count[stays])


def _word_matrix(lexicon: _Lexicon, plan: Plan, needed: Ints) -> Rows:
    """Return the unit vector of every needed word and of every pair over (kept words, pairs, n-grams)."""
    num_kept, num_pairs = lexicon.kept.size, lexicon.pairs.size
    rank_of = dict(zip(lexicon.kept.tolist(), range(num_kept), strict=True))
    gram_row = {gram: row for row, gram in enumerate(lexicon.grams)}
    idf = lexicon.gram_idf.tolist()
    own = math.sqrt(1.0 - plan.char_weight**2)
    row: list[int] = []
    column: list[int] = []
    value: list[float] = []
    for index in needed[needed < len(lexicon.all_words)].tolist():
        word = lexicon.all_words[index]
        which = [i for gram in grams(word, *plan.gram_sizes) if (i := gram_row.get(gram)) is not None]
        rank = rank_of.get(index)
        if rank is not None:
            column.append(rank)
            value.append(own if which else 1.0)
            row.append(index)
        if which:
            scale = plan.char_weight if rank is not None else 1.0
            scale /= math.sqrt(math.fsum(idf[i] ** 2 for i in which))
            column.extend([num_kept + num_pairs + i for i in which])
            value.extend([scale * idf[i] for i in which])
            row.extend([index] * len(which))
    pair = np.arange(num_pairs)
    num_words = len(lexicon.all_words)
    return rows_from(
        np.concatenate([np.array(row, np.int64), num_words + pair]),
        np.concatenate([np.array(column, np.int64), num_kept + pair]),
        np.concatenate([np.array(value), np.ones(num_pairs)]),
        (num_words + num_pairs, num_kept + num_pairs + len(lexicon.grams)),
    )


def _document_matrix(lexicon: _Lexicon) -> Rows:
    idf = np.concatenate([lexicon.word_idf, lexicon.pair_idf])
    value = (1.0 + np.log(lexicon.count)) * idf[lexicon.column]
    order = np.argsort(lexicon.document, kind="stable")
    shape = (lexicon.num_documents, idf.size)
    return rows_from(lexicon.document[order], lexicon.column[order], value[order], shape).unit_rows()


def _to_rows(lexicon: _Lexicon, words_in_grams: Rows, projection: Array, plan: Plan) -> WordRows:
    num_words, num_pairs = len(lexicon.all_words), lexicon.pairs.size
    which = np.concatenate([lexicon.kept, num_words + np.arange(num_pairs)])
    idf = np.concatenate([lexicon.word_idf[lexicon.kept], lexicon.pair_idf]).astype(np.float32)
    return WordRows(
        words=[lexicon.all_words[i] for i in lexicon.kept],
        pairs=lexicon.pairs,
        grams=lexicon.grams,
        table_VF=words_in_grams.take(which).times(projection) * idf[:, None],
        gram_table_GF=np.ascontiguousarray(projection[lexicon.kept.size + num_pairs :]),
        gram_idf=lexicon.gram_idf.astype(np.float32),
        unknown_idf=lexicon.unknown_idf,
        gram_sizes=plan.gram_sizes,
    )
