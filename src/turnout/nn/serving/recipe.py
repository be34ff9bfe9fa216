"""This module makes a small model that can be served at several depths, from questions with answers.

It trains the model, searches short right paths for questions it was not trained on, trains the depth router
on those, and writes a folder that `LocalModel.load` opens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from turnout.core.errors import InputError, sentence
from turnout.core.progress import Progress, silent
from turnout.nn.depth.checkpoint import save_depth
from turnout.nn.depth.drllm.labels import find_labels
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.depth.drllm.search import SearchRule
from turnout.nn.depth.drllm.training import make_lessons, train_router
from turnout.nn.depth.rewards import take_questions
from turnout.nn.depth.routed import RoutedDepth
from turnout.nn.serving.local import Variant, save_variants
from turnout.nn.serving.quiet import quiet
from turnout.nn.tiny import answer_batch, character_tokenizer, tiny_llama, train

Pair = tuple[str, str]
"""A prompt and its right answer."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a model is, how long it learns, and the depths at which it is offered."""

    width: int = 64
    layers: int = 6
    steps: int = 800
    lr: float = 3e-3
    bottleneck: int = 16
    """Units of the depth router; small, because its cost must stay small beside a small model's."""
    simulations: int = 30
    """Paths that are tried for each question."""
    efforts: Mapping[str, float] = field(default_factory=lambda: {"lean": 0.0})
    """Knob of the depth router by name of the compute budget; all blocks are always offered, too."""


def make_model(
    folder: str | Path,
    *,
    name: str,
    size: Size,
    alphabet: str,
    draw: Callable[[], Sequence[Pair]],
    held: Sequence[Pair],
    seed: int = 0,
    progress: Progress = silent,
) -> Path:
    """Train a model on pairs from `draw`, and its depth router on the pairs `held`; return the folder.

    Raises `InputError` where no path answers any of `held`, so that a router has nothing to learn from.
    """
    tokenizer = character_tokenizer(alphabet)
    model = tiny_llama(vocab_size=len(tokenizer), width=size.width, layers=size.layers, seed=seed)
    train(
        model,
        lambda: answer_batch(tokenizer, draw()),
        steps=size.steps,
        lr=size.lr,
        progress=_named(progress, name),
    )
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    routed = RoutedDepth(model=model)
    batch = answer_batch(tokenizer, held)
    rule = SearchRule(simulations=size.simulations)
    labels = find_labels(routed, batch, rule=rule, seed=seed, progress=_named(progress, name))
    rows = labels.teaching()
    if not len(rows):
        raise InputError(
            sentence(f"the model {name!r} answers none of the questions", do="train it for more steps")
        )
    router = DrLLMRouter(layers=size.layers, width=size.width, bottleneck=size.bottleneck, seed=seed)
    lessons = make_lessons(routed, take_questions(batch, rows), labels.counts_QL[rows])
    train_router(router, lessons, seed=seed, progress=_named(progress, name))
    routed.set_router(router)
    save_depth(folder, routed)
    routed.unwrap()
    efforts = [Variant(model=name, effort=effort, knob=knob) for effort, knob in size.efforts.items()]
    save_variants(folder, [Variant(model=name), *efforts])
    return Path(folder)


def _named(progress: Progress, name: str) -> Progress:
    return lambda phrase, done, total: progress(f"{name}: {phrase}", done, total)
