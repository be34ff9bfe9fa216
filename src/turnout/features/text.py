"""This module embeds text without any download: words, pairs and character n-grams, projected."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.contracts import Embedder, State
from turnout.core.query import Query
from turnout.core.validation import check_count, check_number
from turnout.features.sparse import Array
from turnout.features.tokens import clip
from turnout.features.word_learning import Plan, learn_rows
from turnout.features.word_rows import WordRows, rows_from_arrays


@final
class TextEmbedder(Embedder):
    """Embed text as a weighted sum of learned rows: one per word, word pair and character n-gram.

    The rows are the leading right singular vectors of the corpus's tf-idf matrix (latent semantic
    analysis), times the idf, so that an embedding is one gather, one weighted sum and one division.

    Source
    ------
    S. Deerwester et al., "Indexing by latent semantic analysis", JASIS 41(6), 1990: `x = tfidf @ V`.
    N. Halko et al., SIAM Review 53(2), 2011, algorithms 4.3 and 5.1, for V. P. Bojanowski et al.,
    "Enriching word vectors with subword information", TACL 5, 2017, for the n-grams inside words.

    Differs
    -------
    A word is a unit vector that is partly itself and partly the mean of its character n-grams (weights
    `sqrt(1 - c^2)` and `c = char_weight`), so unknown words keep the second part.

    Parameters
    ----------
    num_features:
        Length F of the vectors; fewer where the corpus has a lower rank.
    max_words, max_pairs, max_grams:
        Size of the vocabulary: at most so many of each kind, the most frequent first.
    min_documents:
        A word or pair in fewer documents has no row of its own.
    gram_sizes:
        Shortest and longest character n-gram inside a word; (0, 0) for none.
    char_weight:
        The share `c` of the character n-grams in a known word, in [0, 1].
    pair_weight:
        Weight of pairs against words, at least 0.
    max_chars:
        At most so many characters of a prompt are read, half from each end; bounds the time of a prompt
        of any length.
    sample_rows:
        Number of documents from which the projection is learned (idf always sees all).
    power:
        The vectors are scaled by `singular_value ** -power`; 0 is plain latent semantic analysis.
    seed:
        Of the random range finder.

    Shapes
    ------
    Output float32 of shape (Q, F) with rows of length 1, or 0 for a text without any known token.

    Cost
    ----
    O(tokens * F) per query: about 0.1 ms for 80 tokens on one core.
    """

    def __init__(
        self,
        *,
        num_features: int = 128,
        max_words: int = 30_000,
        max_pairs: int = 30_000,
        max_grams: int = 20_000,
        min_documents: int = 2,
        gram_sizes: tuple[int, int] = (3, 4),
        char_weight: float = 0.5,
        pair_weight: float = 0.7,
        max_chars: int = 8_000,
        sample_rows: int = 3_000,
        power: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.num_features = check_count("TextEmbedder.num_features", num_features)
        self.max_words = check_count("TextEmbedder.max_words", max_words)
        self.max_pairs = check_count("TextEmbedder.max_pairs", max_pairs, low=0)
        self.max_grams = check_count("TextEmbedder.max_grams", max_grams, low=0)
        self.min_documents = check_count("TextEmbedder.min_documents", min_documents)
        low, high = gram_sizes
        check_count("TextEmbedder.gram_sizes[0]", low, low=0, high=high)
        self.gram_sizes = (low, check_count("TextEmbedder.gram_sizes[1]", high, low=low))
        self.char_weight = check_number("TextEmbedder.char_weight", char_weight, low=0.0, high=1.0)
        self.pair_weight = check_number("TextEmbedder.pair_weight", pair_weight, low=0.0)
        self.max_chars = check_count("TextEmbedder.max_chars", max_chars)
        self.sample_rows = check_count("TextEmbedder.sample_rows", sample_rows)
        self.power = check_number("TextEmbedder.power", power, low=0.0, high=1.0)
        self.seed = check_count("TextEmbedder.seed", seed, low=0)
        self.rows_: WordRows | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether a vocabulary was learned."""
        return self.rows_ is not None

    def fit(self, queries: Sequence[Query]) -> Self:
        """Learn vocabulary, idf and projection from the texts; returns self."""
        # The order by checksum is a fixed shuffle: the sample is the same whatever the order of the queries.
        texts = sorted((clip(query.words, self.max_chars) for query in queries), key=_shuffle_key)
        config = self.config()
        del config["max_chars"]
        self.rows_ = learn_rows(texts, Plan(**config))  # type: ignore[arg-type]
        return self

    def embed(self, queries: Sequence[Query]) -> Array:
        """Return `x_QF`, float32 of shape (Q, F), rows of length 1 (or 0 where no token is known)."""
        rows = self._rows("embed")
        x_QF = np.zeros((len(queries), rows.num_features), np.float32)
        rows.add_all(x_QF, (clip(query.words, self.max_chars) for query in queries))
        return x_QF

    def state(self) -> State:
        """Return vocabulary and rows."""
        return State(arrays=self._rows("state").arrays())

    def restore(self, state: State) -> None:
        """Take over vocabulary and rows."""
        self.rows_ = rows_from_arrays(state.arrays, self.gram_sizes)

    def _rows(self, move: str) -> WordRows:
        self.require_fitted(move)
        assert self.rows_ is not None
        return self.rows_


def _shuffle_key(text: str) -> tuple[int, str]:
    return zlib.crc32(text.encode("utf-8", "surrogatepass")), text
