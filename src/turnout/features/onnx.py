"""This module embeds text with an ONNX encoder from a local folder (extra `onnx`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, final

import numpy as np

from turnout.core.contracts import Embedder
from turnout.core.errors import InputError, missing_extra, sentence
from turnout.core.query import Query
from turnout.core.validation import check_choice, check_count
from turnout.features.sparse import Array
from turnout.features.tokens import clip

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

T = TypeVar("T")

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""What a model may ask for."""


@final
class OnnxEmbedder(Embedder):
    """Embed text with `model.onnx` and `tokenizer.json` of a local folder; learns nothing.

    Parameters
    ----------
    folder:
        Holds `model.onnx` (inputs among `input_ids`, `attention_mask`, `token_type_ids`; first output of
        shape (Q, tokens, F) or (Q, F)) and `tokenizer.json`.
    pooling:
        `mean` over real tokens, or `first` token; ignored where the model returns (Q, F).
    max_tokens:
        Tokens of a prompt that the model reads.
    batch_size:
        Texts per run.
    num_threads:
        Threads of one run.

    Raises
    ------
    InputError
        If a file is missing or damaged, or the model asks for other inputs or gives another shape.
    MissingExtraError
        If onnxruntime or tokenizers is not installed.

    Shapes
    ------
    Output float32 of shape (Q, F) with rows of length 1; 0 where a text has no token.
    """

    def __init__(
        self,
        *,
        folder: str,
        pooling: Literal["mean", "first"] = "mean",
        max_tokens: int = 256,
        batch_size: int = 32,
        num_threads: int = 1,
    ) -> None:
        self.folder = str(folder)
        self.pooling = check_choice("OnnxEmbedder.pooling", pooling, ("mean", "first"))
        self.max_tokens = check_count("OnnxEmbedder.max_tokens", max_tokens)
        self.batch_size = check_count("OnnxEmbedder.batch_size", batch_size)
        self.num_threads = check_count("OnnxEmbedder.num_threads", num_threads)
        self._loaded: tuple[InferenceSession, Tokenizer] | None = None

    def fit(self, queries: Sequence[Query]) -> Self:
        """Load the model; returns self."""
        self._load()
        return self

    def embed(self, queries: Sequence[Query]) -> Array:
        """Return pooled, normalised vectors, float32 of shape (Q, F)."""
        # No prompt has more than this many useful characters for so few tokens.
        texts = [clip(query.words, 16 * self.max_tokens) for query in queries] or [""]
        texts = [text.encode("utf-8", "replace").decode() for text in texts]
        parts = [
            self._run(texts[low : low + self.batch_size]) for low in range(0, len(texts), self.batch_size)
        ]
        x_QF = np.concatenate(parts)[: len(queries)]
        length_Q = np.linalg.norm(x_QF, axis=1, keepdims=True)
        return np.asarray(x_QF / np.maximum(length_Q, 1e-12), np.float32)

    def _run(self, texts: Sequence[str]) -> Array:
        session, tokenizer = self._load()
        encoded = tokenizer.encode_batch(list(texts))
        every: dict[str, Any] = {
            "input_ids": np.array([one.ids for one in encoded], np.int64),
            "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
            "token_type_ids": np.array([one.type_ids for one in encoded], np.int64),
        }
        wanted = [entry.name for entry in session.get_inputs()]
        output = session.run(None, {name: every[name] for name in wanted})[0]
        return pool(np.asarray(output, np.float32), every["attention_mask"], self.pooling)

    def _load(self) -> tuple[InferenceSession, Tokenizer]:
        if self._loaded is None:
            try:
                import onnxruntime
                from tokenizers import Tokenizer
            except ImportError as error:
                raise missing_extra("onnxruntime", feature="OnnxEmbedder", extra="onnx") from error
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.num_threads
            session = _open(
                self._path("model.onnx"),
                lambda path: onnxruntime.InferenceSession(
                    path, sess_options=options, providers=["CPUExecutionProvider"]
                ),
            )
            _check_inputs(session, self.folder)
            tokenizer = _open(self._path("tokenizer.json"), Tokenizer.from_file)
            tokenizer.enable_truncation(self.max_tokens)
            tokenizer.enable_padding()
            self._loaded = session, tokenizer
        return self._loaded

    def _path(self, name: str) -> Path:
        path = Path(self.folder) / name
        if not path.is_file():
            raise InputError(
                sentence(
                    f"OnnxEmbedder.folder lacks {name}",
                    allowed="a folder with model.onnx and tokenizer.json",
                    got=self.folder,
                    do="export the encoder into it",
                )
            )
        return path


def _open(path: Path, read: Callable[[str], T]) -> T:
    """Read a file with a package whose errors are of its own kinds."""
    try:
        return read(str(path))
    except Exception as error:  # An edge: neither package has an error tree that could be named here.
        raise InputError(
            sentence(
                f"OnnxEmbedder: {str(path)!r} cannot be read",
                allowed=f"a file {path.name} as its package writes it",
                got=f"{type(error).__name__}: {error}",
                do="export or download it again",
            )
        ) from error


def _check_inputs(session: InferenceSession, folder: str) -> None:
    names = [entry.name for entry in session.get_inputs()]
    if unknown := [name for name in names if name not in INPUTS]:
        raise InputError(
            sentence(
                f"OnnxEmbedder: the model in {folder!r} asks for an input that is not known here",
                allowed=", ".join(INPUTS),
                got=unknown,
                do="export the encoder without it",
            )
        )


def pool(output: Array, mask_QT: np.ndarray, pooling: str) -> Array:
    """Return one vector per text from the encoder's output of shape (Q, T, F) or (Q, F)."""
    if output.ndim == 2:
        return output
    if output.ndim != 3:
        raise InputError(
            sentence(
                "OnnxEmbedder: the shape of the model's first output",
                allowed="(Q, tokens, F) or (Q, F)",
                got=output.shape,
                do="export the encoder without a head",
            )
        )
    if pooling == "first" and output.shape[1]:
        return output[:, 0]
    weight = mask_QT.astype(np.float32)
    total = np.einsum("qt,qtf->qf", weight, output)
    return np.asarray(total / np.maximum(weight.sum(axis=1, keepdims=True), 1.0), np.float32)
