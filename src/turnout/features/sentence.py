"""This module embeds text with a sentence-transformers model (extra `sentence`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self, final

import numpy as np

from turnout.core.contracts import Embedder
from turnout.core.errors import InputError, missing_extra, sentence
from turnout.core.query import Query
from turnout.core.validation import check_count
from turnout.features.sparse import Array
from turnout.features.tokens import clip

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@final
class SentenceEmbedder(Embedder):
    """Embed text with a pretrained sentence encoder; learns nothing.

    Source
    ------
    N. Reimers, I. Gurevych, "Sentence-BERT", EMNLP 2019.

    Parameters
    ----------
    model:
        A model's name or a local folder, as `sentence_transformers.SentenceTransformer` takes it. It is
        loaded at the first `fit` or `embed`; a name that is not in the local cache is downloaded then.
    device:
        `cpu`, `cuda`, ...; None lets the package choose.
    batch_size:
        Texts per forward pass.
    max_chars:
        At most so many characters of a prompt are read, half from each end.

    Raises
    ------
    InputError
        If the model cannot be loaded.
    MissingExtraError
        If sentence-transformers is not installed.

    Shapes
    ------
    Output float32 of shape (Q, F) with rows of length 1.

    Cost
    ----
    One forward pass per query: tens of milliseconds on one core; wrap it in `CachedEmbedder`.
    """

    def __init__(
        self,
        *,
        model: str = "sentence-transformers/all-MiniLM-L6-v2",
        device: str | None = None,
        batch_size: int = 32,
        max_chars: int = 8_000,
    ) -> None:
        self.model = model
        self.device = device
        self.batch_size = check_count("SentenceEmbedder.batch_size", batch_size)
        self.max_chars = check_count("SentenceEmbedder.max_chars", max_chars)
        self._encoder: SentenceTransformer | None = None

    def fit(self, queries: Sequence[Query]) -> Self:
        """Load the model; returns self."""
        self._load()
        return self

    def embed(self, queries: Sequence[Query]) -> Array:
        """Return the encoder's normalised vectors, float32 of shape (Q, F)."""
        encoder = self._load()
        # Of no texts the width must be right, too: one is embedded and thrown away.
        texts = [clip(query.words, self.max_chars) for query in queries] or [""]
        found = encoder.encode(
            [text.encode("utf-8", "replace").decode() for text in texts],
            batch_size=self.batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(found, np.float32)[: len(queries)]

    def _load(self) -> SentenceTransformer:
        if self._encoder is None:
            try:
                from sentence_transformers import SentenceTransformer
            except ImportError as error:
                raise missing_extra(
                    "sentence-transformers", feature="SentenceEmbedder", extra="sentence"
                ) from error
            try:
                self._encoder = SentenceTransformer(self.model, device=self.device)
            except Exception as error:  # An edge: the packages below raise errors of a dozen kinds.
                raise InputError(
                    sentence(
                        f"SentenceEmbedder: the model {self.model!r} cannot be loaded",
                        allowed="a folder that sentence-transformers saved, or a name that it finds",
                        got=f"{type(error).__name__}: {error}",
                        do="check the name, the folder and the device",
                    )
                ) from error
        return self._encoder
