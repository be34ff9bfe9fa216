"""This module runs the recipe of Router-R1 on a tiny transformer: warm start, GRPO, held-out queries."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.router_r1_world import World
from turnout.core.progress import Progress, silent
from turnout.core.rng import make_rng
from turnout.nn.rl.demonstrations import demonstration_batch
from turnout.nn.rl.grpo import GRPOSettings, train_grpo
from turnout.nn.rl.rollout import Limits, roll_out
from turnout.nn.rl.words import word_tokenizer
from turnout.nn.tiny import tiny_llama, train

LIMITS = Limits(max_tokens=48, max_turn_tokens=10)
BATCH = 64
DEMONSTRATIONS = 1000


@dataclass(frozen=True, kw_only=True)
class Size:
    """How long a run takes."""

    warm_steps: int = 150
    steps: int = 60
    prompts: int = 8
    group: int = 8
    lr: float = 2e-3
    width: int = 48
    layers: int = 2


def run_seed(world: World, seed: int, size: Size, *, progress: Progress = silent) -> dict[str, Any]:
    """Return held-out rewards, shares of valid formats and the like, before and after GRPO, and the times."""
    torch.manual_seed(seed)
    world.reward = world.fresh_reward()
    prompts = [world.prompt(query) for query in world.train.queries]
    tokenizer = word_tokenizer(world.words(), prompts, max_words=300)
    model = tiny_llama(
        vocab_size=len(tokenizer), width=size.width, layers=size.layers, positions=128, seed=seed
    )
    stop_ids = tokenizer.convert_tokens_to_ids(["</search>", "</answer>"])
    rng = make_rng(seed, "demonstrations")
    started_s = time.perf_counter()
    shown = [world.demonstration(rng) for _ in range(DEMONSTRATIONS)]
    train(
        model,
        lambda: demonstration_batch(tokenizer, [shown[i] for i in rng.integers(len(shown), size=16)]),
        steps=size.warm_steps,
        lr=3e-3,
    )
    warm_s = time.perf_counter() - started_s
    progress("seed", 1, 3)
    before = look(world, model, tokenizer, stop_ids)
    started_s = time.perf_counter()
    history = train_grpo(
        model,
        tokenizer,
        [query.id for query in world.train.queries],
        world.begin,
        world.score,
        limits=LIMITS,
        stop_ids=stop_ids,
        settings=GRPOSettings(
            steps=size.steps, prompts=size.prompts, group=size.group, lr=size.lr, seed=seed
        ),
    )
    grpo_s = time.perf_counter() - started_s
    progress("seed", 2, 3)
    after = look(world, model, tokenizer, stop_ids)
    progress("seed", 3, 3)
    return {
        "seed": seed,
        "before": before,
        "after": after,
        "history": history,
        "warm_s": warm_s,
        "grpo_s": grpo_s,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def look(world: World, model: Any, tokenizer: Any, stop_ids: list[int]) -> dict[str, np.ndarray]:
    """Return per held-out query what the policy, sampled at temperature 1, comes to; the window stays."""
    generator = torch.Generator().manual_seed(0)
    dialogues = [world.begin(query.id) for query in world.test.queries]
    for start in range(0, len(dialogues), BATCH):
        roll_out(
            model,
            tokenizer,
            dialogues[start : start + BATCH],
            limits=LIMITS,
            stop_ids=stop_ids,
            generator=generator,
        )
    episodes = world.episodes(dialogues)
    return {
        "reward": np.array(world.held_out_reward.scores(episodes, learn=False)),
        "valid": np.array([float(one.is_valid) for one in episodes]),
        "quality": np.array([one.quality if one.is_valid else 0.0 for one in episodes]),
        "usd": np.array([one.usd for one in episodes]),
        "calls": np.array([float(dialogue.trace.num_calls) for dialogue in dialogues]),
    }
