"""This module trains one gate with one seed, and measures what it did.

Axes: B items, S positions, E experts, V = 256 bytes.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from turnout.core.errors import InputError
from turnout.core.progress import Progress, silent
from turnout.nn.analysis.change import chance_overlap, overlap
from turnout.nn.analysis.load import balance
from turnout.nn.balance.coupling import coupling_loss
from turnout.nn.balance.switch import balance_loss
from turnout.nn.bench.contenders import Contender, find_contender
from turnout.nn.bench.controls import OneChoiceGate
from turnout.nn.bench.corpus import Corpus
from turnout.nn.bench.model import Block, ByteModel
from turnout.nn.bench.setting import Setting
from turnout.nn.flops import executed_flops
from turnout.nn.gates.contract import Gate
from turnout.nn.mixture import MoE
from turnout.nn.plan import Plan, SparsePlan

LATE = 0.8
"""The choice at this share of the steps is compared with the last one."""

WARM_STEPS = 5
"""So many steps at the start are not timed."""

MAX_SETS = 120
"""Up to so many sets of k experts are tried for the best fixed choice."""


class Watch:
    """Wall and processor seconds; the work on results does not count."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self._since = (time.perf_counter(), time.process_time())

    def pause(self) -> None:
        """Stop."""
        wall, cpu = self._since
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu

    def go_on(self, *, forget: bool) -> None:
        """Start again, from 0 where what was before shall be forgotten."""
        if forget:
            self.wall_s = self.cpu_s = 0.0
        self._since = (time.perf_counter(), time.process_time())


@dataclass
class Cell:
    """One training run: model, data and what is needed to go on."""

    setting: Setting
    contender: Contender
    seed: int
    corpus: Corpus
    device: torch.device

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.model = ByteModel(self.setting.size)
        self.model.equip(self.contender.feeds(self.setting.size)).to(self.device)
        # Its own stream: what a gate draws for itself must not change the data.
        self.data = torch.Generator().manual_seed(self.seed)
        judged, positions = self.setting.judged, self.setting.size.positions
        self.valid_BS = _windows(self.corpus.valid_N, judged, positions).to(self.device)

    def run(self, progress: Progress = silent) -> dict[str, Any]:
        """Train and measure; returns what is written down.

        Training that left the numbers has no loss, and `diverged_at` says in which step.
        """
        late, late_step, watch, taken = [], round(self.setting.steps * LATE), Watch(), 0
        for step in self._train():
            watch.pause()
            taken = step + 1
            if step + 1 == late_step:
                late = self.choices(seed=1)
            progress(f"{self.contender.name}, seed {self.seed}", step + 1, self.setting.steps)
            watch.go_on(forget=step + 1 == WARM_STEPS)
        found: dict[str, Any] = {
            "gate": self.contender.name,
            "seed": self.seed,
            "key": self.setting.key,
            "corpus": self.corpus.fingerprint,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "sees": self._sees(),
        }
        if taken < self.setting.steps:
            return found | {"loss": math.nan, "diverged_at": taken + 1}
        last = self.choices(seed=2)
        tokens = (self.setting.steps - WARM_STEPS) * self.setting.batch * self.setting.size.positions
        found |= {
            "loss": self.loss(),
            "tokens_per_s": tokens / watch.wall_s,
            "tokens_per_cpu_s": tokens / watch.cpu_s,
            "feed_flops_per_token": self.feed_flops(),
        }
        found |= self._loads()
        if last and late:
            pairs = list(zip(late, last, strict=True))
            found["change_rate"] = sum(1 - overlap(*pair) for pair in pairs) / len(pairs)
            found["chance_change_rate"] = sum(1 - chance_overlap(*pair) for pair in pairs) / len(pairs)
        if self.contender.name == "top_k":
            found["best_fixed_loss"] = self.best_fixed()
        return found

    def _train(self) -> Any:
        """Yield each step after it was taken; ends early where loss or gradient is no number any more."""
        setting = self.setting
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=setting.rate, betas=(0.9, 0.95), weight_decay=0.01
        )
        warm_up = max(setting.steps // 20, 1)

        def scale(step: int) -> float:
            if step < warm_up:
                return (step + 1) / warm_up
            return 0.05 + 0.475 * (1 + math.cos(math.pi * (step - warm_up) / (setting.steps - warm_up)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
        self.model.train()
        for step in range(setting.steps):
            ids_BS = self._draw()
            try:
                loss = _next_byte(self._logits(ids_BS), ids_BS) + self._penalty()
            except InputError:
                # What a gate took in the first step, it refuses later for its numbers alone.
                if not step:
                    raise
                break
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            size = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            if not bool(loss.isfinite() & size.isfinite()):
                break
            optimizer.step()
            schedule.step()
            for gate in {id(gate): gate for gate in self._gates()}.values():
                gate.after_step()
            yield step
        self.model.eval()

    def _logits(self, ids_BS: Tensor) -> Tensor:
        """Return the logits (B, S, V) of each next byte, in single precision; items have one byte more."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.setting.is_half):
            logits_BSV: Tensor = self.model(ids_BS[:, :-1])
        return logits_BSV.float()

    def _draw(self) -> Tensor:
        length = self.setting.size.positions + 1
        starts_B = torch.randint(
            len(self.corpus.train_N) - length, (self.setting.batch,), generator=self.data
        )
        rows = [self.corpus.train_N[start : start + length] for start in starts_B.tolist()]
        return torch.stack(rows).to(self.device)

    def _penalty(self) -> Tensor | float:
        """Return the weighted losses of the plans, their mean over layers."""
        plans, total = self.model.plans, torch.zeros((), device=self.device)
        for plan in plans:
            for name, loss in plan.losses.items():
                total = total + self.contender.factors.get(name, self.contender.other) * loss
            if self.contender.has_switch_loss:
                assert isinstance(plan, SparsePlan)
                assert plan.scores_TE is not None
                total = total + self.contender.factors["balance"] * balance_loss(plan.scores_TE, chosen(plan))
        if self.contender.coupling:
            total = total + self.contender.coupling * self._coupling()
        return total / max(len(plans), 1)

    def _coupling(self) -> Tensor:
        """Return the sum over layers of how far gates' rows and experts are from being coupled."""
        total = torch.zeros((), device=self.device)
        for block in self._blocks():
            assert isinstance(block.feed, MoE)
            rows_ED = block.feed.gate.get_parameter("weight_ED")
            half_EID, _ = block.feed.experts.get_parameter("up_proj").chunk(2, dim=1)
            total = total + coupling_loss(rows_ED, half_EID)
        return total

    @torch.no_grad()
    def loss(self) -> float:
        """Return nats a byte on the validation text."""
        parts = torch.split(self.valid_BS, self.setting.batch)
        torch.manual_seed(self.seed)
        values = [float(_next_byte(self._logits(part), part)) * len(part) for part in parts]
        return sum(values) / len(self.valid_BS)

    @torch.no_grad()
    def choices(self, *, seed: int) -> list[Tensor]:
        """Return which experts (T, E) each layer chooses on the first validation items.

        There is none without a choice. `seed` is for the control that draws experts.
        """
        was_training = self.model.training
        self.model.eval()
        # A GPU's numbers are put back too, or training would go on with other noise.
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            self._logits(self.valid_BS[: self.setting.batch])
        self.model.train(was_training)
        return [chosen(plan) for plan in self.model.plans if isinstance(plan, SparsePlan)]

    @torch.no_grad()
    def feed_flops(self) -> float:
        """Return the executed FLOPs a token of all feed-forwards, gates included, counted in eval mode."""
        part_BS = self.valid_BS[: self.setting.batch]
        _, all_flops = executed_flops(lambda: self._logits(part_BS))
        # All else costs what it costs without feed-forwards.
        feeds = [block.feed for block in self._blocks()]
        for block in self._blocks():
            block.feed = nn.Identity()
        try:
            _, rest = executed_flops(lambda: self._logits(part_BS))
        finally:
            for block, feed in zip(self._blocks(), feeds, strict=True):
                block.feed = feed
        return (all_flops - rest) / part_BS[:, 1:].numel()

    @torch.no_grad()
    def best_fixed(self) -> float:
        """Return the loss with one set of experts for all tokens, in each layer the best on training text."""
        probe_BS, blocks = self._draw(), self._blocks()
        feeds = [block.feed for block in blocks]
        assert all(isinstance(feed, MoE) for feed in feeds)
        for block in blocks:
            moe = block.feed
            assert isinstance(moe, MoE)
            k = round(self.contender.active(moe.gate.num_experts))
            sets = list(islice(combinations(range(moe.gate.num_experts), k), MAX_SETS))
            losses = []
            for experts in sets:
                block.feed = MoE(gate=OneChoiceGate(moe.gate, experts), experts=moe.experts).eval()
                losses.append(float(_next_byte(self._logits(probe_BS), probe_BS)))
            best = sets[losses.index(min(losses))]
            block.feed = MoE(gate=OneChoiceGate(moe.gate, best), experts=moe.experts).eval()
        found = self.loss()
        for block, feed in zip(blocks, feeds, strict=True):
            block.feed = feed
        return found

    @torch.no_grad()
    def _loads(self) -> dict[str, float]:
        """Return the balance of the experts that are chosen, mean over layers; nothing without gates."""
        totals: list[Tensor] = []
        for part in torch.split(self.valid_BS, self.setting.batch):
            self._logits(part)
            loads = [load(plan)[self.contender.always :] for plan in self.model.plans]
            totals = [a + b for a, b in zip(totals, loads, strict=True)] if totals else loads
        if not totals:
            return {}
        found = [balance(load_E) for load_E in totals]
        pairs = [
            plan.num_pairs / plan.num_tokens for plan in self.model.plans if isinstance(plan, SparsePlan)
        ]
        return {
            "max_vio": sum(one.max_vio for one in found) / len(found),
            "dead_share": sum(one.num_dead / one.num_experts for one in found) / len(found),
            **({"experts_per_token": sum(pairs) / len(pairs)} if pairs else {}),
        }

    def _blocks(self) -> list[Block]:
        return [block for block in self.model.blocks if isinstance(block, Block)]

    def _gates(self) -> list[Gate]:
        return [block.feed.gate for block in self._blocks() if isinstance(block.feed, MoE)]

    def _sees(self) -> str:
        gates = self._gates()
        return gates[0].sees if gates else "token"


def run_cell(
    setting: Setting,
    name: str,
    seed: int,
    corpus: Corpus,
    *,
    device: str = "cpu",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train one gate with one seed and return what was measured."""
    cell = Cell(setting, find_contender(name), seed, corpus, torch.device(device))
    return cell.run(progress)


def chosen(plan: SparsePlan) -> Tensor:
    """Return which experts (T, E) a plan gives each token."""
    shape = (plan.num_tokens, plan.num_experts)
    chosen_TE = torch.zeros(shape, dtype=torch.bool, device=plan.experts_N.device)
    chosen_TE[plan.tokens_N, plan.experts_N] = True
    return chosen_TE


def load(plan: Plan) -> Tensor:
    """Return each expert's load (E,): pairs, or weight where a plan makes no choice."""
    return (
        plan.counts_E.double() if isinstance(plan, SparsePlan) else plan.to_dense().detach().double().sum(0)
    )


def _next_byte(logits_BSV: Tensor, ids_BS: Tensor) -> Tensor:
    return functional.cross_entropy(logits_BSV.flatten(0, 1), ids_BS[:, 1:].flatten())


def _windows(text_N: Tensor, count: int, positions: int) -> Tensor:
    """Return windows (count, S + 1) spread evenly over a text; they overlap where it is short."""
    last = len(text_N) - positions - 1
    starts = torch.linspace(0, last, count).long()
    return torch.stack([text_N[start : start + positions + 1] for start in starts.tolist()])
