"""This module asks why token gates (PHATGOOSE) find so few answers on the ten tasks of `bench_adapters`.

Three things could be wrong: what a gate learns, what a gate of this form could know, and what a choice per
token and module costs on a small model. So, on the same base, adapters and gates: how often the question's
own adapter is a gate's first choice, for inputs as in the gates' training (the own adapter alone is active)
and for those that routing itself makes; the same for gates that were trained longer, and for gates of equal
form that were told all adapters' questions; and how many answers are right where the own adapter is taken
with a given chance and any other one else. Ten minutes on one core; `--quick` writes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import record
from benchmarks.bench_adapters import (
    LEVELS,
    QUICK,
    SEED,
    TARGETS,
    TOKENIZER,
    Asked,
    Settings,
    ask,
    drawer,
    make_vectors,
    right,
)
from turnout.core.rng import make_rng
from turnout.datasets.procedural import TASKS, questions
from turnout.nn.adapters import (
    AdapterPool,
    AdapterRouter,
    OracleAdapter,
    PhatgooseRouter,
    train_adapter,
    train_gate,
)
from turnout.nn.adapters.contract import Context
from turnout.nn.adapters.linear import AdapterLinear
from turnout.nn.adapters.phatgoose import gate_scores, standardise
from turnout.nn.regret import interval_of
from turnout.nn.tiny import Batch, answer_batch, tiny_llama, train

CHANCES = (1.0, 0.95, 0.9, 0.8, 0.6, 0.3, 0.1)
"""With which the own adapter is taken, by token and module; 0.1 is any of the ten."""

LONGER_LR = 2e-2
"""Of gates that are trained four times as long; four times the usual one."""

KINDS = ("as trained", "trained longer", "told of rivals")

ROUTER = PhatgooseRouter(top_k=2)


@dataclass(frozen=True)
class Teaching:
    """How gates that see rivals are taught: logistic regression on whose question a token belongs to."""

    questions: int = 60
    """Of each task."""
    steps: int = 150
    lr: float = 0.1


class NoisyOracle(AdapterRouter):
    """Takes the adapter that an item asks for with a chance, else any other one, by token and module."""

    def __init__(self, *, chance: float, seed: int) -> None:
        self.chance, self.seed = chance, seed
        self._generator = torch.Generator().manual_seed(seed)

    def weights(self, u: Tensor, site: AdapterLinear, context: Context) -> Tensor:
        """Return 1 for the adapter that is taken, (..., E)."""
        own_B = torch.tensor([context.index(str(task)) for task in context.tasks_B or ()])
        own_BT = own_B[:, None].expand(u.shape[:-1])
        num = len(context.names)
        other_BT = torch.randint(0, num - 1, own_BT.shape, generator=self._generator)
        other_BT = other_BT + (other_BT >= own_BT).long()
        is_own_BT = torch.rand(own_BT.shape, generator=self._generator) < self.chance
        return F.one_hot(torch.where(is_own_BT, own_BT, other_BT), num).to(u)


def inputs(pool: AdapterPool, batch: Batch, **route: Any) -> dict[str, Tensor]:
    """Return what every module reads in one pass under a route."""
    seen: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        return lambda _site, args: seen.__setitem__(path, args[0].detach())

    handles = [site.register_forward_pre_hook(keep(path)) for path, site in pool.sites.items()]
    try:
        with torch.no_grad(), pool.routed(**route):
            pool.model(batch.input_ids_BT, attention_mask=batch.attention_mask_BT)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def first_choice(
    pool: AdapterPool, seen: Mapping[str, Tensor], own_B: Tensor, mask_BT: Tensor
) -> np.ndarray[Any, Any]:
    """Return for each item the share of (token, module) whose highest score is the own adapter's."""
    context = pool.context()
    shares = []
    for path, site in pool.sites.items():
        is_own_BT = gate_scores(seen[path], site, context).argmax(-1) == own_B[:, None]
        shares.append((is_own_BT * mask_BT).sum(1) / mask_BT.sum(1))
    return torch.stack(shares).mean(0).double().numpy()


def teach_with_rivals(pool: AdapterPool, seed: int, teaching: Teaching) -> None:
    """Replace all gates by those that tell best whose question a token belongs to, module by module."""
    rng = make_rng(seed, "rivals")
    shown = [q for t in TASKS for q in questions(t, count=teaching.questions, levels=LEVELS, rng=rng)]
    batch = answer_batch(TOKENIZER, [(q.prompt, q.answer) for q in shown])
    is_token_BT = batch.attention_mask_BT.bool()
    own_T = torch.tensor([pool.names.index(q.task) for q in shown])[:, None].expand(is_token_BT.shape)[
        is_token_BT
    ]
    seen = inputs(pool, batch, router=OracleAdapter(), tasks=[q.task for q in shown])
    gates: dict[str, Tensor] = {}
    for path, site in pool.sites.items():
        u_TD = standardise(seen[path].float())[is_token_BT]
        v_ED = torch.zeros(len(pool.names), site.in_features, requires_grad=True)
        optimizer = torch.optim.Adam([v_ED], lr=teaching.lr)
        for _ in range(teaching.steps):
            loss = F.cross_entropy(u_TD @ v_ED.T / site.in_features**0.5, own_T)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        gates[path] = v_ED.detach()
    for index, name in enumerate(pool.names):
        pool.set_gate(name, {path: v_ED[index] for path, v_ED in gates.items()})


def of_gates(pool: AdapterPool, asked: Asked) -> dict[str, np.ndarray[Any, Any]]:
    """Return by item what the gates that the pool holds choose, and whether the answer is right."""
    tasks = [q.task for q in asked.asked]
    batch = answer_batch(TOKENIZER, [(q.prompt, q.answer) for q in asked.asked])
    own_B, mask_BT = torch.tensor([pool.names.index(t) for t in tasks]), batch.attention_mask_BT
    own = inputs(pool, batch, router=OracleAdapter(), tasks=tasks)
    routed = inputs(pool, batch, router=ROUTER)
    return {
        "first_choice_own_inputs": first_choice(pool, own, own_B, mask_BT),
        "first_choice_routed_inputs": first_choice(pool, routed, own_B, mask_BT),
        "right": right(pool, asked, router=ROUTER),
    }


def one_seed(base: PreTrainedModel, seed: int, settings: Settings, teaching: Teaching) -> dict[str, Any]:
    """Return by item all that is asked, for adapters and gates as `bench_adapters` trains them."""
    with AdapterPool(model=base, targets=TARGETS) as pool:
        for number, task in enumerate(TASKS):
            train_adapter(
                pool, task, drawer([task], settings.rows, seed), rank=settings.rank,
                steps=settings.adapter_steps, lr=1e-2, seed=100 * seed + number,
            )  # fmt: skip
            draw = drawer([task], settings.gate_rows, seed + 1000)
            train_gate(pool, task, draw, steps=settings.gate_steps)
        asked = ask("report", settings.reported, seed, make_vectors(seed))
        tasks = [q.task for q in asked.asked]
        found: dict[str, Any] = {"as trained": of_gates(pool, asked)}
        found["noisy"] = [
            right(pool, asked, router=NoisyOracle(chance=c, seed=seed), tasks=tasks) for c in CHANCES
        ]
        for task in TASKS:
            draw = drawer([task], settings.gate_rows, seed + 1000)
            train_gate(pool, task, draw, steps=4 * settings.gate_steps, lr=LONGER_LR)
        found["trained longer"] = of_gates(pool, asked)
        teach_with_rivals(pool, seed, teaching)
        found["told of rivals"] = of_gates(pool, asked)
        print(f"seed {seed}: {found['as trained']['right'].mean():.3f}", flush=True)
        return found


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return means over questions and seeds with 95 % intervals."""

    def joined(parts: Sequence[np.ndarray[Any, Any]]) -> dict[str, float]:
        return asdict(interval_of(np.concatenate(parts), rng=make_rng(SEED, "bootstrap")))

    gates = {kind: {key: joined([run[kind][key] for run in runs]) for key in runs[0][kind]} for kind in KINDS}
    noisy = [
        {"chance": chance, "right": joined([run["noisy"][number] for run in runs])}
        for number, chance in enumerate(CHANCES)
    ]
    return {"gates": gates, "noisy_oracle": noisy}


def main(arguments: list[str]) -> None:
    """Write `token_gates.json`."""
    torch.set_num_threads(1)
    is_quick = "--quick" in arguments
    settings = QUICK if is_quick else Settings()
    teaching = Teaching(questions=2, steps=2) if is_quick else Teaching()
    base = tiny_llama(vocab_size=len(TOKENIZER), width=settings.width, layers=3, positions=64, seed=SEED)
    train(base, drawer(list(TASKS), 32, SEED, is_named=False), steps=settings.base_steps, lr=4e-3)
    runs = [one_seed(base, seed, settings, teaching) for seed in range(settings.seeds)]
    result = {"settings": asdict(settings), "teaching": asdict(teaching), **summarise(runs)}
    print(result)
    if not is_quick:
        print(record.write("token_gates", result, seed=SEED).name)


if __name__ == "__main__":
    main(sys.argv[1:])
