"""This module reports what rewiring experts at test time does to the loss on the text that comes next.

Small models trained here on one kind of text, with gates of four kinds, read contexts of that and of a
shifted kind. Offsets are learned
on the context; what is judged is the loss on its continuation, which they have not seen, minus that of the
model as it is. Beside them: random offsets of the same length, half the context without offsets (what reading
more is worth), and offsets that peeked at the continuation. Then the price: seconds and executed FLOPs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import record, rewiring_models, rewiring_picture
from turnout.nn.gate_hook import GateHook
from turnout.nn.testtime.context import next_token_loss
from turnout.nn.testtime.rewiring import Rewiring

Floats = npt.NDArray[np.float64]

CLAIMS = {
    "gain": "HumanEval +5.5 points on OLMoE (up to +6.7), with 5 steps of 0.05 on each context",
    "layers": "steps go to the layers of the highest confidence (hard), or are scaled by it (soft)",
    "in_context": "1.6 times fewer FLOPs than few-shot prompts of equal gain",
    "latency": "about 2 times (20.1 s against 10.7 s a problem)",
    "source": "arXiv 2510.14853",
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How large a run is."""

    families: tuple[str, ...] = tuple(rewiring_models.MAKERS)
    seeds: tuple[int, ...] = (0, 1, 2)
    width: int = 64
    layers: int = 4
    experts: int = 8
    train_steps: int = 400
    train_length: int = 192  # as long as a context and its continuation
    context: int = 160
    continuation: int = 32
    items: int = 24
    generated: int = 128
    every: int = 64
    repeats: int = 7


QUICK = Setting(
    seeds=(0,), width=32, layers=2, experts=4, train_steps=12, train_length=48,
    context=24, continuation=12, items=4, generated=6, every=3, repeats=1,
)  # fmt: skip


def arms() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the names and arguments of what is compared."""
    for optimizer in ("sgd", "adam"):
        for steps in (1, 5):
            yield f"all {optimizer} {steps}", {"layers": "all", "optimizer": optimizer, "steps": steps}
    yield "all sgd 5, 100 times the step", {"layers": "all", "step_size": 5.0}
    yield "hard high sgd 5", {"layers": "hard", "select": "high"}
    for select in ("high", "low"):
        for layers in ("hard", "soft"):
            yield f"{layers} {select} adam 5", {"layers": layers, "select": select, "optimizer": "adam"}
    yield "selection adam 5", {"layers": "all", "where": "selection", "optimizer": "adam"}


class Trial:
    """One model and one kind of text: contexts (B, T) of `setting.context` and their continuations."""

    def __init__(self, model: PreTrainedModel, ids_BT: Tensor, setting: Setting) -> None:
        self.model, self.setting = model, setting
        self.full_BT, self.context_BT = ids_BT, ids_BT[:, : setting.context]
        self.hook = GateHook(model)

    @torch.no_grad()
    def judge(self, deltas: Sequence[Tensor] | None, *, where: str = "logits", skipped: int = 0) -> Floats:
        """Return each item's loss on its continuation (B,), in nats a token, without its first tokens."""
        ids_BT = self.full_BT[:, skipped:]
        mask_BT = torch.ones_like(ids_BT)
        if deltas is None:
            return self._tail(ids_BT, mask_BT)
        with self.hook.steered(deltas, where=where):  # type: ignore[arg-type]
            return self._tail(ids_BT, mask_BT)

    def _tail(self, ids_BT: Tensor, mask_BT: Tensor) -> Floats:
        tail = self.setting.continuation
        logits_BTV = self.model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits
        loss_BT = torch.nn.functional.cross_entropy(
            logits_BTV[:, -tail - 1 : -1].transpose(1, 2), ids_BT[:, -tail:], reduction="none"
        )
        return loss_BT.double().mean(dim=1).numpy()

    def context_loss(self, deltas: Sequence[Tensor] | None, where: str = "logits") -> Floats:
        """Return each item's loss on the context itself (B,)."""
        mask_BT = torch.ones_like(self.context_BT)
        with torch.no_grad(), self.hook.steered(deltas or [None] * len(self.hook.layers), where=where):  # type: ignore[arg-type]
            return next_token_loss(self.model, self.context_BT, mask_BT).double().numpy()

    def moved_share(self, deltas: Sequence[Tensor], where: str) -> float:
        """Return the share of (token, layer, slot) whose expert is another one than without offsets."""
        with torch.no_grad():
            with self.hook.recording() as plain:
                self.model(input_ids=self.full_BT, use_cache=False)
            with self.hook.steered(deltas, where=where), self.hook.recording() as steered:  # type: ignore[arg-type]
                self.model(input_ids=self.full_BT, use_cache=False)
        shares = []
        for before, after in zip(plain, steered, strict=True):
            same = before[0].indices_TK[:, :, None] == after[0].indices_TK[:, None, :]
            shares.append(1.0 - float(same.any(dim=-1).float().mean()))
        return float(np.mean(shares))

    def run(self, seed: int) -> dict[str, dict[str, Floats | float]]:
        """Return per arm the continuation's and the context's change of loss by item, and what moved."""
        base, base_context = self.judge(None), self.context_loss(None)
        found: dict[str, dict[str, Floats | float]] = {
            "dense": {"loss": base, "context_loss": base_context},
            "half the context": {"change": self.judge(None, skipped=self.setting.context // 2) - base},
        }
        for name, arguments in arms():
            rewiring = Rewiring(model=self.model, **arguments)
            where = rewiring.where
            deltas = rewiring.adapt(self.context_BT).deltas
            found[name] = self._changes(deltas, where, base, base_context)
            if name == "all adam 5":
                noise = random_like(deltas, seed)
                found["random, as long as all adam 5"] = self._changes(noise, where, base, base_context)
                peeked = rewiring.adapt(self.full_BT).deltas
                found["all adam 5, peeked"] = self._changes(peeked, where, base, base_context)
        return found

    def _changes(
        self, deltas: Sequence[Tensor], where: str, base: Floats, base_context: Floats
    ) -> dict[str, Floats | float]:
        return {
            "change": self.judge(deltas, where=where) - base,
            "context_change": self.context_loss(deltas, where) - base_context,
            "experts_changed": self.moved_share(deltas, where),
            "length": float(np.mean([float(d.norm(dim=1).mean()) for d in deltas])),
        }


def random_like(deltas: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Return offsets in random directions, each as long as the one it stands for."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for delta_BE in deltas:
        noise_BE = torch.randn(delta_BE.shape, generator=generator)
        found.append(noise_BE / noise_BE.norm(dim=1, keepdim=True) * delta_BE.norm(dim=1, keepdim=True))
    return found


def interval(values: Floats, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean over items."""
    draws = np.random.default_rng(seed).integers(0, len(values), size=(4000, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def summary(trials: Sequence[dict[str, dict[str, Floats | float]]]) -> dict[str, dict[str, object]]:
    """Join the seeds: means over all items with intervals, and the mean of each seed."""
    found: dict[str, dict[str, object]] = {}
    for arm in trials[0]:
        line: dict[str, object] = {}
        for key in trials[0][arm]:
            values = [np.atleast_1d(np.asarray(trial[arm][key], dtype=np.float64)) for trial in trials]
            joined = np.concatenate(values)
            line[key] = float(joined.mean())
            if key in ("change", "loss"):
                line[f"{key}_interval"] = interval(joined)
                line[f"{key}_by_seed"] = [float(v.mean()) for v in values]
        found[arm] = line
    return found


def price(model: PreTrainedModel, prompt_BT: Tensor, setting: Setting) -> dict[str, object]:
    """Return seconds and executed FLOPs of generating, and their ratios to the model as it is."""
    tokens = setting.generated
    options: dict[str, Any] = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    settings: dict[str, dict[str, Any]] = {
        "dense": {"steps": 0, "layers": "all", "every_tokens": tokens},
        "once, all layers": {"layers": "all", "every_tokens": tokens},
        "once, half the layers": {"every_tokens": tokens},
        f"every {setting.every}, all layers": {"layers": "all", "every_tokens": setting.every},
        f"every {setting.every}, all layers, cache kept": {
            "layers": "all", "every_tokens": setting.every, "is_cache_kept": True
        },
    }  # fmt: skip
    every = {name: Rewiring(model=model, **arguments) for name, arguments in settings.items()}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in every}
    # In turn, so that whatever else the machine does falls on all of them alike.
    for _ in range(setting.repeats):
        for name, rewiring in every.items():
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            rewiring.generate(prompt_BT, **options)
            spent[name].append((time.perf_counter() - began_s, time.process_time() - began_cpu_s))
    found: dict[str, dict[str, float]] = {}
    for name, rewiring in every.items():
        counted = rewiring.generate(prompt_BT, count_flops=True, **options)
        pairs = np.array(spent[name]) / np.array(spent["dense"])
        found[name] = {
            "seconds": float(np.median([wall for wall, _ in spent[name]])),
            "seconds_ratio": float(np.median(pairs[:, 0])),
            "processor_ratio": float(np.median(pairs[:, 1])),
            "flops": float((counted.generating_flops or 0) + (counted.adapting_flops or 0)),
        }
    dense = found["dense"]
    for line in found.values():
        line["flops_ratio"] = line["flops"] / dense["flops"]
    twice = Rewiring(model=model, **settings["dense"])
    doubled = torch.cat([prompt_BT, prompt_BT], dim=1)
    flops = float(twice.generate(doubled, count_flops=True, **options).generating_flops or 0)
    return {**found, "twice the context": {"flops": flops, "flops_ratio": flops / dense["flops"]}}


def measure(family: str, texts: dict[str, rewiring_models.Ids], setting: Setting) -> dict[str, object]:
    """Train one family with every seed and return all of its numbers."""
    trials: dict[str, list[dict[str, dict[str, Floats | float]]]] = {"unshifted": [], "shifted": []}
    final, costs = [], None
    length = setting.context + setting.continuation
    for seed in setting.seeds:
        model = rewiring_models.make_model(
            family, width=setting.width, layers=setting.layers, experts=setting.experts, seed=seed
        )
        losses = rewiring_models.train_on(
            model, texts["train"], steps=setting.train_steps, length=setting.train_length, seed=seed,
            progress=say(f"{family} seed {seed}"),
        )  # fmt: skip
        final.append(float(np.mean(losses[-20:])))
        for kind, done in trials.items():
            rng = np.random.default_rng(1000 + seed)
            ids_BT = rewiring_models.windows(texts[kind], count=setting.items, length=length, rng=rng)
            done.append(Trial(model, ids_BT, setting).run(seed))
        if costs is None:
            costs = price(model, torch.from_numpy(texts["shifted"][None, : setting.context]), setting)
    return {
        "gate": rewiring_models.GATES[family],
        "training_loss": final,
        **{kind: summary(done) for kind, done in trials.items()},
        "price": costs,
    }


def say(what: str) -> Any:
    """Return a progress that prints every hundredth step."""

    def progress(phrase: str, done: int, total: int) -> None:
        if done % 100 == 0 or done == total:
            print(f"{what}: {phrase} {done}/{total}", flush=True)

    return progress


def main(arguments: list[str]) -> None:
    """Write `rewiring.json` and `rewiring.png`.

    `--quick`: a very small run, written nowhere.
    """
    torch.set_num_threads(1)
    is_quick = "--quick" in arguments
    setting = QUICK if is_quick else Setting()
    texts, source = (rewiring_models.made_up(6000), "made up") if is_quick else rewiring_models.read_texts()
    result: dict[str, object] = {"texts": source, "setting": vars(setting), "paper": CLAIMS}
    for family in setting.families:
        result[family] = measure(family, texts, setting)
        print(lines(family, result[family]), flush=True)
    if not is_quick:
        print(record.write("rewiring", result, seed=setting.seeds[0]).name)
        print(rewiring_picture.draw(result, record.RESULTS / "rewiring.png").name)


def lines(family: str, found: Any) -> str:
    """Return the numbers of a family as text."""
    rows = [f"{family}: training loss {found['training_loss']}"]
    for kind in ("unshifted", "shifted"):
        for arm, line in found[kind].items():
            numbers = {k: np.round(v, 4).tolist() for k, v in line.items() if not k.endswith("by_seed")}
            rows.append(f"  {kind:9s} {arm:30s} {numbers}")
    rows += [f"  price     {name:30s} {line}" for name, line in found["price"].items()]
    return "\n".join(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
