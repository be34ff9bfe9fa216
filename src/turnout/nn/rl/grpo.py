"""This module trains a policy by GRPO with TRL's `GRPOTrainer`, over dialogues of several turns.

TRL plays single turns or tools of its own; dialogues go through its `rollout_func`, which it calls
experimental: we generate, and hand back tokens with a mask (`env_mask`) that keeps the task's replies out of
the loss. The algorithm (groups, advantages, clipping) is TRL's, unchanged: DeepSeekMath, arXiv 2402.03300.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from turnout.core.errors import InputError, missing_extra, sentence
from turnout.core.validation import check_count, check_number
from turnout.nn.rl.dialogue import Dialogue
from turnout.nn.rl.rollout import Limits, roll_out

Begin = Callable[[str], Dialogue]
"""Starts the task of an id."""

Score = Callable[[Sequence[Any]], Sequence[float]]
"""Rewards finished dialogues, given together, so that one scale serves all of them."""

_SILENCE = "TRL_EXPERIMENTAL_SILENCE"

PATIENCE = 5
"""First updates after which it is told that nothing was there to learn from."""


class NothingToLearn(RuntimeWarning):
    """From the start, dialogues of one task were all rewarded alike: GRPO has nothing to compare."""


@dataclass(frozen=True, kw_only=True)
class GRPOSettings:
    """How to train."""

    steps: int = 100
    """Updates."""
    prompts: int = 8
    """Tasks per update."""
    group: int = 8
    """Dialogues per task; their rewards are compared with each other."""
    lr: float = 1e-3
    """Learning rate, falling to 0."""
    beta: float = 0.0
    """Weight of the KL term to the start; 0 needs no second model."""
    temperature: float = 1.0
    """Of the sampling."""
    seed: int = 0
    """Seeds sampling and the order of tasks."""

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("prompts", 1), ("group", 2), ("seed", 0)):
            check_count(f"GRPOSettings.{name}", getattr(self, name), low=low)
        check_number("GRPOSettings.lr", self.lr, low=0.0, allow_low=False)
        check_number("GRPOSettings.temperature", self.temperature, low=0.0, allow_low=False)
        check_number("GRPOSettings.beta", self.beta, low=0.0)


def train_grpo(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[str],
    begin: Begin,
    score: Score,
    *,
    limits: Limits,
    stop_ids: Collection[int],
    settings: GRPOSettings | None = None,
) -> list[float]:
    """Train `model` in place and return the mean reward of each update.

    Parameters
    ----------
    model, tokenizer:
        The policy, after a warm start.
    ids:
        Names of the tasks to train on.
    begin:
        Starts a task; called once for every dialogue.
    score:
        Rewards dialogues that were played, in their order.
    limits, stop_ids:
        As for `roll_out`.
    settings:
        How to train; None takes the defaults.

    Warns
    -----
    NothingToLearn
        Where the first updates hold no two dialogues of a task with different rewards.

    Raises
    ------
    InputError
        Where there is no task.
    MissingExtraError
        Without the packages of the extra `rl`.
    """
    own = GRPOSettings() if settings is None else settings
    if not ids:
        raise InputError(sentence("train_grpo: ids", allowed="at least one task", got="none"))
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        try:
            from datasets import Dataset
            from trl import GRPOConfig, GRPOTrainer
        except ImportError as error:
            raise missing_extra("trl", feature="training by GRPO", extra="rl") from error
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=_scored,
            args=GRPOConfig(**_arguments(own, limits, folder)),
            # TRL drops what does not fill an update.
            train_dataset=Dataset.from_dict({"prompt": list(ids) * -(-own.prompts // len(ids))}),
            processing_class=tokenizer,
            rollout_func=_player(
                model, tokenizer, begin, score, limits=limits, stop_ids=stop_ids, settings=own
            ),
        )
        trainer.train()
        history = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    model.eval()
    return history


def _player(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    begin: Begin,
    score: Score,
    *,
    limits: Limits,
    stop_ids: Collection[int],
    settings: GRPOSettings,
) -> Callable[[list[str], Any], dict[str, Any]]:
    """Return what TRL calls to play the dialogues of an update; one generator draws in all updates."""
    generator = torch.Generator(model.device).manual_seed(settings.seed)
    start = Start(updates=min(settings.steps, PATIENCE))

    def play(prompts: list[str], _: Any) -> dict[str, Any]:
        dialogues = [begin(prompt) for prompt in prompts]
        rollouts = roll_out(
            model,
            tokenizer,
            dialogues,
            limits=limits,
            stop_ids=stop_ids,
            temperature=settings.temperature,
            generator=generator,
        )
        scores = list(score(dialogues))
        start.see(prompts, scores)
        return {
            "prompt_ids": [one.prompt_ids for one in rollouts],
            "completion_ids": [one.completion_ids for one in rollouts],
            "logprobs": [one.logprobs for one in rollouts],
            "env_mask": [one.own for one in rollouts],
            "score": scores,
        }

    return play


class Start:
    """Looks whether the first updates hold a difference between dialogues of one task."""

    def __init__(self, *, updates: int) -> None:
        self._left = updates
        self._seen: set[float] = set()

    def see(self, prompts: Sequence[str], scores: Sequence[float]) -> None:
        """Take the rewards of an update; warn if it is the last of the first ones and none differed."""
        if not self._left:
            return
        by_task: dict[str, set[float]] = {}
        for prompt, score in zip(prompts, scores, strict=True):
            by_task.setdefault(prompt, set()).add(score)
        self._seen.update(scores)
        is_different = any(len(found) > 1 for found in by_task.values())
        self._left = 0 if is_different else self._left - 1
        if is_different or self._left:
            return
        warnings.warn(
            sentence(
                "train_grpo: from the start no two dialogues of a task were rewarded differently, so that "
                "nothing is learned",
                got=f"rewards {sorted(self._seen)[:5]}",
                do="warm up until some dialogues keep the format (docs/router_r1.md), or sample more of them",
            ),
            NothingToLearn,
            stacklevel=2,
        )


def _scored(*, score: list[float], **_: Any) -> list[float]:
    """Return the rewards that the rollout has found already."""
    return score


def _arguments(own: GRPOSettings, limits: Limits, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": own.steps,
        "per_device_train_batch_size": own.prompts * own.group,
        "num_generations": own.group,
        "max_completion_length": limits.max_tokens,
        "learning_rate": own.lr,
        "lr_scheduler_type": "linear",
        "beta": own.beta,
        "temperature": own.temperature,
        "seed": own.seed,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TRL's notices about experimental parts, and its progress lines, away from the caller."""
    before = os.environ.get(_SILENCE)
    os.environ[_SILENCE] = "1"
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", NothingToLearn)
            yield
    finally:
        if before is None:
            os.environ.pop(_SILENCE, None)
        else:
            os.environ[_SILENCE] = before
