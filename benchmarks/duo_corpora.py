"""This module gives the benchmark of module sizes what it trains and judges on, and says how much of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from turnout.datasets import procedural
from turnout.nn.tiny import Batch, answer_batch, character_tokenizer

TASKS = ("add", "copy", "reverse", "sort")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is trained and measured."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Of models and their routers; all are judged on the same texts."""
    width: int = 48
    layers: int = 6
    columns: int = 48
    rows: int = 16
    """Of text in a training batch; twice as many of the tasks, which are shorter."""
    module_steps: int = 500
    text_steps: int = 300
    """Of modules on text, whose batches hold more tokens."""
    router_steps: int = 60
    judged_rows: int = 14
    judged_tokens: int = 96
    judged_tokens_skip: int = 32
    """With skip there are 729 patterns for each token and not 64."""
    draws: int = 100


QUICK = Settings(
    seeds=(0,), width=16, layers=3, columns=12, rows=4, module_steps=8, text_steps=8, router_steps=3,
    judged_rows=4, judged_tokens=8, judged_tokens_skip=6, draws=3,
)  # fmt: skip

Draw = Callable[[np.random.Generator, int, str], Batch]
"""(rng, rows, split) to a batch; the splits are `train`, `select` and `judge`."""


def procedural_corpus(_settings: Settings) -> tuple[int, Draw]:
    """Return (vocabulary, draw) of four checkable tasks; only answers carry a loss."""
    tokenizer = character_tokenizer(procedural.ALPHABET)

    def draw(rng: np.random.Generator, rows: int, _split: str) -> Batch:
        # Every draw is new: six random characters rarely repeat, and the judged ones have their own stream.
        task_N = rng.choice(TASKS, size=2 * rows)
        asked = [procedural.questions(str(task), count=1, levels=(3, 4, 5, 6), rng=rng)[0] for task in task_N]
        return answer_batch(tokenizer, [(q.prompt, q.answer) for q in asked])

    return len(tokenizer), draw


def text_corpus(path: Path, settings: Settings) -> tuple[int, Draw]:
    """Return (vocabulary, draw) of windows of a text; the last fifth is judged, a tenth before it selects."""
    text = path.read_text(encoding="utf-8")
    tokenizer = character_tokenizer(text)
    words = tokenizer.get_vocab()
    id_N = torch.tensor([words[character] for character in text])
    cuts = [int(share * len(id_N)) for share in (0.0, 0.7, 0.8, 1.0)]
    part = {name: id_N[cuts[i] : cuts[i + 1]] for i, name in enumerate(("train", "select", "judge"))}

    def draw(rng: np.random.Generator, rows: int, split: str) -> Batch:
        starts = rng.integers(0, len(part[split]) - settings.columns, size=rows)
        ids_BT = torch.stack([part[split][s : s + settings.columns] for s in starts])
        return Batch(input_ids_BT=ids_BT, attention_mask_BT=torch.ones_like(ids_BT), labels_BT=ids_BT)

    return len(tokenizer), draw
