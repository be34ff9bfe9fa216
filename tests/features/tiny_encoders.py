"""This module builds real encoders that are small enough to be made while a test waits, as files on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

NUM_FEATURES = 16
MAX_TOKENS = 48
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def train_tokenizer(texts: Sequence[str], *, is_framed: bool = True) -> Any:
    """Train a WordPiece tokenizer of `tokenizers`; framed, it puts [CLS] and [SEP] around a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=[*SPECIAL], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    if is_framed:
        frame = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=frame
        )
    return tokenizer


def save_sentence_model(folder: Path, texts: Sequence[str]) -> Path:
    """Write a BERT of two layers in the layout of the published sentence-transformers models."""
    import torch
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    tokenizer = train_tokenizer(texts)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_TOKENS, **names)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=NUM_FEATURES,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": False})
    pooling = {"word_embedding_dimension": NUM_FEATURES, "pooling_mode_mean_tokens": True}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    return folder


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, with its folder."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


@dataclass(frozen=True)
class Attention:
    """One layer of masked self-attention over word vectors; the same in ONNX and in numpy."""

    word_VF: np.ndarray
    query_FF: np.ndarray
    key_FF: np.ndarray

    @classmethod
    def draw(cls, num_words: int, seed: int = 0) -> Attention:
        """Draw the weights."""
        rng = np.random.default_rng(seed)
        word_VF = rng.normal(size=(num_words, NUM_FEATURES)).astype(np.float32)
        pair = rng.normal(size=(2, NUM_FEATURES, NUM_FEATURES)).astype(np.float32) / math.sqrt(NUM_FEATURES)
        return cls(word_VF, *pair)

    def __call__(self, ids: Sequence[int]) -> np.ndarray:
        """Return the outputs for one text without padding, shape (T, F)."""
        x_TF = self.word_VF[list(ids)]
        score_TT = (x_TF @ self.query_FF) @ (x_TF @ self.key_FF).T / math.sqrt(NUM_FEATURES)
        weight_TT = np.exp(score_TT - score_TT.max(axis=1, keepdims=True))
        weight_TT /= weight_TT.sum(axis=1, keepdims=True)
        return x_TF + weight_TT @ x_TF

    def save(self, path: Path, *, inputs: Sequence[str] = ("input_ids", "attention_mask")) -> None:
        """Write the layer as an ONNX graph; further `inputs` are declared and left unread."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        constants = {
            "word": self.word_VF,
            "wq": self.query_FF,
            "wk": self.key_FF,
            "one": np.float32(1.0),
            "far": np.float32(1e9),
            "scale": np.float32(1 / math.sqrt(NUM_FEATURES)),
            "axis": np.array([1], np.int64),
        }
        steps = [
            ("Gather", "word input_ids", "x"),
            ("MatMul", "x wq", "q"),
            ("MatMul", "x wk", "k"),
            ("Transpose", "k", "kt"),
            ("MatMul", "q kt", "raw"),
            ("Mul", "raw scale", "scaled"),
            ("Cast", "attention_mask", "mask"),
            ("Sub", "mask one", "minus"),
            ("Mul", "minus far", "low"),
            ("Unsqueeze", "low axis", "bias"),
            ("Add", "scaled bias", "score"),
            ("Softmax", "score", "weight"),
            ("MatMul", "weight x", "mixed"),
            ("Add", "x mixed", "last_hidden_state"),
        ]
        extra: dict[str, dict[str, Any]] = {
            "Transpose": {"perm": [0, 2, 1]},
            "Cast": {"to": TensorProto.FLOAT},
            "Softmax": {"axis": -1},
        }
        graph = helper.make_graph(
            [helper.make_node(op, reads.split(), [out], **extra.get(op, {})) for op, reads, out in steps],
            "attention",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["Q", "T"]) for name in inputs],
            [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["Q", "T", NUM_FEATURES])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString())
