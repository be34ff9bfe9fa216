"""This module reports what rewiring experts at test time does to answers that can be checked.

Small OLMoE models are trained here on documents of solved questions, one a line. A prompt is a document whose
last line is open; vectors are learned on the prompt, which holds no part of the last answer, and the answer
is generated greedily and compared with the only right one. Prompts are of the training's kind, of longer
questions than any in training, or of tasks that are rare there. Beside every arm: the model as it is and
random vectors of the same length. Then the price of an answer: processor time and executed FLOPs. Minutes on
one core; `--quick` runs a small one and writes nothing.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import record, rewiring_tasks_picture
from benchmarks.bench_rewiring import random_like, say
from benchmarks.rewiring_models import ALPHABET, encode, make_model
from turnout.core.rng import make_rng
from turnout.datasets import procedural
from turnout.nn.regret import interval_of
from turnout.nn.testtime.context import positions
from turnout.nn.testtime.rewiring import Rewiring
from turnout.nn.tiny import IGNORED, PAD, Batch, train

COMMON = ("copy", "count", "largest", "shift")
RARE = ("reverse", "sort")
KINDS = ("unshifted", "longer", "rare")
LINE_END = int(encode("\n")[0])
Floats = npt.NDArray[np.float64]

PAPER = {
    "gain": "HumanEval +5.5 points on OLMoE (up to +6.7), with 5 steps of 0.05 on each context",
    "latency": "about 2 times (20.1 s against 10.7 s a problem)",
    "source": "arXiv 2510.14853",
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How large a run is."""

    seeds: tuple[int, ...] = (0, 1, 2)
    width: int = 64
    layers: int = 4
    experts: int = 8
    steps: int = 800
    rows: int = 16
    lines: int = 6
    """Of a document; the last one is open in a prompt."""
    levels: tuple[int, ...] = (2, 3, 4)
    longer: tuple[int, ...] = (5,)
    rare_share: float = 0.03
    """Of training lines that are of a rare task."""
    items: int = 48
    priced: int = 8
    repeats: int = 3


QUICK = Setting(
    seeds=(0,), width=16, layers=2, experts=4, steps=4, rows=2, lines=2, items=3, priced=2, repeats=1
)

ARMS: dict[str, dict[str, Any]] = {
    "hard high sgd (the paper's)": {"layers": "hard", "select": "high"},
    "hard low sgd": {"layers": "hard", "select": "low"},
    "all sgd": {"layers": "all"},
    "hard high adam": {"layers": "hard", "select": "high", "optimizer": "adam"},
    "hard low adam": {"layers": "hard", "select": "low", "optimizer": "adam"},
    "all adam": {"layers": "all", "optimizer": "adam"},
}


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Documents with an open last line, padded on the left, and what is right."""

    ids_BT: Tensor
    mask_BT: Tensor
    answers: tuple[str, ...]


def question(rng: np.random.Generator, tasks: Sequence[str], levels: Sequence[int]) -> procedural.Question:
    """Return one question of one of the tasks."""
    return procedural.questions(str(rng.choice(tasks)), count=1, levels=levels, rng=rng)[0]


def padded(rows: Sequence[npt.NDArray[np.int64]], *, on_left: bool) -> tuple[Tensor, Tensor]:
    """Return (ids, mask) of rows of several lengths."""
    length = max(len(row) for row in rows)
    sides = [(length - len(row), 0) if on_left else (0, length - len(row)) for row in rows]
    ids = [np.pad(row, side, constant_values=PAD) for row, side in zip(rows, sides, strict=True)]
    mask = [np.pad(np.ones_like(row), side) for row, side in zip(rows, sides, strict=True)]
    return torch.from_numpy(np.stack(ids)), torch.from_numpy(np.stack(mask))


def training_batch(rng: np.random.Generator, setting: Setting) -> Batch:
    """Return whole documents, of rare tasks in a small share of their lines."""
    rows = []
    for _ in range(setting.rows):
        kinds = [RARE if rng.random() < setting.rare_share else COMMON for _ in range(setting.lines)]
        asked = [question(rng, tasks, setting.levels) for tasks in kinds]
        rows.append(encode("".join(f"{one.prompt}{one.answer}\n" for one in asked)))
    ids_BT, mask_BT = padded(rows, on_left=False)
    labels_BT = ids_BT.masked_fill(mask_BT == 0, IGNORED)
    return Batch(input_ids_BT=ids_BT, attention_mask_BT=mask_BT, labels_BT=labels_BT)


def make_prompts(kind: str, rng: np.random.Generator, setting: Setting) -> Prompts:
    """Return prompts `unshifted`, `longer` or `rare`; all lines of one are of one kind."""
    tasks, levels = (
        (RARE if kind == "rare" else COMMON),
        setting.longer if kind == "longer" else setting.levels,
    )
    rows, answers = [], []
    for _ in range(setting.items):
        *solved, last = [question(rng, tasks, levels) for _ in range(setting.lines)]
        rows.append(encode("".join(f"{one.prompt}{one.answer}\n" for one in solved) + last.prompt))
        answers.append(last.answer)
    ids_BT, mask_BT = padded(rows, on_left=True)
    return Prompts(ids_BT=ids_BT, mask_BT=mask_BT, answers=tuple(answers))


def options(prompts: Prompts) -> dict[str, Any]:
    """Return the arguments of `generate` for an answer."""
    longest = max(len(answer) for answer in prompts.answers)
    return {
        "max_new_tokens": longest + 1, "do_sample": False, "eos_token_id": LINE_END, "pad_token_id": PAD,
    }  # fmt: skip


@torch.no_grad()
def judge(model: PreTrainedModel, prompts: Prompts) -> dict[str, Floats]:
    """Return by item whether the greedy answer is right, and the loss of the right one in nats a token."""
    length = prompts.ids_BT.shape[1]
    out_BT = model.generate(input_ids=prompts.ids_BT, attention_mask=prompts.mask_BT, **options(prompts))[
        :, length:
    ]
    said = ["".join(ALPHABET[i - 4] for i in row if i >= 4).partition("\n")[0] for row in out_BT.tolist()]
    answer_BT, is_answer_BT = padded([encode(f"{a}\n") for a in prompts.answers], on_left=False)
    ids_BT = torch.cat([prompts.ids_BT, answer_BT], dim=1)
    mask_BT = torch.cat([prompts.mask_BT, is_answer_BT], dim=1)
    logits_BTV = model(
        input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions(mask_BT), use_cache=False
    ).logits[:, length - 1 : -1]
    loss_BT = torch.nn.functional.cross_entropy(logits_BTV.transpose(1, 2), answer_BT, reduction="none")
    loss_B = (loss_BT * is_answer_BT).sum(dim=1) / is_answer_BT.sum(dim=1)
    right = [one == answer for one, answer in zip(said, prompts.answers, strict=True)]
    return {"right": np.array(right, dtype=np.float64), "loss": loss_B.double().numpy()}


def run(model: PreTrainedModel, prompts: Prompts, seed: int) -> dict[str, dict[str, Floats]]:
    """Return what every arm's answers are, item by item."""
    found = {"dense": judge(model, prompts)}
    for name, arguments in ARMS.items():
        rewiring = Rewiring(model=model, **arguments)
        deltas = rewiring.adapt(prompts.ids_BT, prompts.mask_BT).deltas
        with rewiring.applied(deltas):
            found[name] = judge(model, prompts)
        if name == "all adam":
            with rewiring.applied(random_like(deltas, seed)):
                found["random, as long as all adam"] = judge(model, prompts)
    return found


def summary(trials: Sequence[dict[str, dict[str, Floats]]]) -> dict[str, dict[str, Any]]:
    """Join the seeds: accuracy and loss of every arm, and paired changes against the model as it is."""
    found: dict[str, dict[str, Any]] = {}
    for arm in trials[0]:
        line: dict[str, Any] = {}
        for key in ("right", "loss"):
            values = [trial[arm][key] for trial in trials]
            changes = [trial[arm][key] - trial["dense"][key] for trial in trials]
            line[key] = _interval(np.concatenate(values))
            line[f"{key}_change"] = _interval(np.concatenate(changes))
            line[f"{key}_by_seed"] = [float(value.mean()) for value in values]
        found[arm] = line
    return found


def price(model: PreTrainedModel, prompts: Prompts, setting: Setting) -> dict[str, dict[str, float]]:
    """Return processor time and executed FLOPs of answers, as ratios to the model as it is."""
    some = dataclasses.replace(
        prompts,
        ids_BT=prompts.ids_BT[: setting.priced],
        mask_BT=prompts.mask_BT[: setting.priced],
        answers=prompts.answers[: setting.priced],
    )
    arms = {"dense": {"layers": "all", "steps": 0}, **ARMS}
    every = {name: Rewiring(model=model, **arguments) for name, arguments in arms.items()}
    spent: dict[str, list[float]] = {name: [] for name in every}
    # In turn, so that whatever else the machine does falls on all of them alike.
    for _ in range(setting.repeats):
        for name, rewiring in every.items():
            began_s = time.process_time()
            rewiring.generate(some.ids_BT, some.mask_BT, **options(some))
            spent[name].append(time.process_time() - began_s)
    flops = {}
    for name, rewiring in every.items():
        counted = rewiring.generate(some.ids_BT, some.mask_BT, count_flops=True, **options(some))
        flops[name] = float((counted.generating_flops or 0) + (counted.adapting_flops or 0))
    return {
        name: {
            "processor_ratio": float(np.median(np.array(spent[name]) / np.array(spent["dense"]))),
            "flops_ratio": flops[name] / flops["dense"],
        }
        for name in every
    }


def trained(setting: Setting, seed: int) -> tuple[PreTrainedModel, float]:
    """Return a model and the loss that its training ended at."""
    model = make_model(
        "olmoe", width=setting.width, layers=setting.layers, experts=setting.experts, seed=seed
    )
    rng = make_rng(seed, "train")
    losses = train(
        model,
        lambda: training_batch(rng, setting),
        steps=setting.steps,
        lr=3e-3,
        progress=say(f"seed {seed}"),
    )
    model.config.output_router_logits = False
    return model, float(np.mean(losses[-20:]))


def measure(setting: Setting) -> dict[str, Any]:
    """Train a model a seed and return all numbers."""
    trials: dict[str, list[dict[str, dict[str, Floats]]]] = {kind: [] for kind in KINDS}
    losses, costs = [], None
    for seed in setting.seeds:
        model, loss = trained(setting, seed)
        losses.append(loss)
        asked = {kind: make_prompts(kind, make_rng(seed, "judge", kind), setting) for kind in KINDS}
        for kind, prompts in asked.items():
            trials[kind].append(run(model, prompts, seed))
            share = trials[kind][-1]["dense"]["right"].mean()
            print(f"seed {seed}, {kind}: {share:.3f} right as it is", flush=True)
        costs = costs or price(model, asked["rare"], setting)
    return {
        "setting": dataclasses.asdict(setting),
        "tasks": {"common": COMMON, "rare": RARE},
        "paper": PAPER,
        "training_loss": losses,
        "kinds": {kind: summary(found) for kind, found in trials.items()},
        "price": costs,
    }


def _interval(value_Q: Floats) -> dict[str, float]:
    return dataclasses.asdict(interval_of(value_Q, rng=make_rng(0, "bootstrap")))


def main(arguments: list[str]) -> None:
    """Write `rewiring_tasks.json` and `rewiring_tasks.png`."""
    torch.set_num_threads(1)
    is_quick = "--quick" in arguments
    result = measure(QUICK if is_quick else Setting())
    for kind, arms in result["kinds"].items():
        for arm, line in arms.items():
            print(f"{kind:10s} {arm:30s} {line['right']} {line['right_change']} {line['loss_change']}")
    print(result["price"])
    if not is_quick:
        print(record.write("rewiring_tasks", result, seed=0).name)
        print(rewiring_tasks_picture.draw(result, record.RESULTS / "rewiring_tasks.png").name)


if __name__ == "__main__":
    main(sys.argv[1:])
