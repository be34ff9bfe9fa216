"""This module makes a small model that can be served at several depths, from questions with answers.

It trains the model while blocks are left out by chance, searches short right paths for questions that are
kept for this, lets them share a few paths, trains the depth router on those, finds the knob of each compute
budget on the same questions, and writes a folder that `LocalModel.load` opens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from turnout.core.errors import InputError, sentence
from turnout.core.progress import Progress, silent
from turnout.core.rng import make_rng
from turnout.core.validation import check_number
from turnout.nn.depth.checkpoint import save_depth
from turnout.nn.depth.drllm.labels import find_labels
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.depth.drllm.search import SearchRule
from turnout.nn.depth.drllm.sharing import share_labels
from turnout.nn.depth.drllm.training import make_lessons, train_router
from turnout.nn.depth.dropping import train_dropping
from turnout.nn.depth.rewards import right_answers, take_questions
from turnout.nn.depth.routed import RoutedDepth
from turnout.nn.serving.local import Variant, save_variants
from turnout.nn.serving.quiet import quiet
from turnout.nn.tiny import Batch, answer_batch, character_tokenizer, tiny_llama

KNOBS = tuple(hundredths / 100 for hundredths in range(-50, 51, 2))
"""Settings of the depth router that are tried for each compute budget."""

Pair = tuple[str, ...]
"""A prompt, its right answer, and perhaps what to say inside the prompt (see `answer_batch`)."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a model is, how long it learns, and the depths at which it is offered."""

    width: int = 64
    layers: int = 6
    steps: int = 800
    lr: float = 3e-3
    bottleneck: int = 16
    """Units of the depth router; small, because its cost must stay small beside a small model's."""
    drop: float = 0.1
    """Share of the blocks that is left out in training, so that a block can be missed."""
    simulations: int = 30
    """Paths that are tried for each question."""
    shared: int = 4
    """Paths that questions share."""
    efforts: Mapping[str, float] = field(default_factory=lambda: {"lean": 0.6})
    """Calls of blocks, as a share of all blocks, that each compute budget may make on average; all blocks are
    always offered, too."""

    def __post_init__(self) -> None:
        for effort, share in self.efforts.items():
            check_number(f"Size: effort {effort!r}", share, low=0.0, high=1.0, allow_low=False)


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
    progress = _named(progress, name)
    tokenizer = character_tokenizer(alphabet)
    model = tiny_llama(vocab_size=len(tokenizer), width=size.width, layers=size.layers, seed=seed)
    routed = RoutedDepth(model=model)
    train_dropping(
        routed,
        lambda: answer_batch(tokenizer, draw()),
        # A single block that is left out leaves no network.
        drop=size.drop if size.layers > 1 else 0.0,
        rng=make_rng(seed, "recipe", "drop"),
        steps=size.steps,
        lr=size.lr,
        progress=progress,
    )
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    questions = answer_batch(tokenizer, held)
    router = _train_router(routed, questions, name, size, seed, progress)
    routed.set_router(router)
    variants = [Variant(model=name)]
    for effort, share in size.efforts.items():
        variants.append(Variant(model=name, effort=effort, knob=find_knob(routed, router, questions, share)))
    save_depth(folder, routed)
    routed.unwrap()
    save_variants(folder, variants)
    return Path(folder)


def _train_router(
    routed: RoutedDepth, batch: Batch, name: str, size: Size, seed: int, progress: Progress
) -> DrLLMRouter:
    # To the end: the first path that is short enough is seldom the shortest.
    rule = SearchRule(simulations=size.simulations, is_exhausting=True)
    labels = find_labels(routed, batch, rule=rule, seed=seed, progress=progress)
    labels = share_labels(routed, batch, labels, paths=size.shared, seed=seed, progress=progress)
    rows = labels.teaching()
    if not len(rows):
        raise InputError(
            sentence(f"the model {name!r} answers none of the questions", do="train it for more steps")
        )
    router = DrLLMRouter(layers=size.layers, width=size.width, bottleneck=size.bottleneck, seed=seed)
    lessons = make_lessons(routed, take_questions(batch, rows), labels.counts_QL[rows])
    train_router(router, lessons, seed=seed, progress=progress)
    return router


def find_knob(routed: RoutedDepth, router: DrLLMRouter, batch: Batch, share: float) -> float:
    """Return the knob of `KNOBS` at which most questions are answered within a share of all calls.

    The mean over the questions must not exceed `share` times the number of blocks; of equally good knobs the
    one with the fewest calls is taken. The router keeps the knob it had.
    """
    before, found = router.knob, []
    for knob in KNOBS:
        router.set_knob(knob)
        right_B, counts_BL = right_answers(routed, batch)
        calls = float(counts_BL.sum(1).double().mean())
        # At the lowest knobs everything is skipped, so there is always one that is within the share.
        if calls <= share * routed.layers:
            found.append((-int(right_B.sum()), calls, knob))
    router.set_knob(before)
    return min(found, key=lambda line: (line[0], line[1], abs(line[2])))[2]


def _named(progress: Progress, name: str) -> Progress:
    return lambda phrase, done, total: progress(f"{name}: {phrase}", done, total)
