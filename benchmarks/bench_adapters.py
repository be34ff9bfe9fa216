"""This module measures routing between ten LoRA adapters (S3) against its baselines, held-in and held-out.

A Llama of three blocks learns ten checkable tasks whose names are left out of its questions, so that it
knows the rules but not which is asked for. Each adapter then learns one task from questions that name it,
and gets its token gate. Held-in: every task's adapter is in the pool. Held-out: the adapter of the task that
is asked is taken out. Renamed: all are there, and the question gives its task a name that no adapter has
seen. Global vectors come from turnout's own text encoder, fitted on the descriptions and
on training questions: "sample" embeds the prompt alone; "task" embeds a text about the query's task, as the
published code does, and so is told the task. What is chosen (best single, `glider_chosen`) is chosen on
other questions than those that are reported. 20 minutes on one core; `--quick` writes nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks import adapters_picture, record
from turnout.core import Query
from turnout.core.rng import make_rng
from turnout.datasets.procedural import ALPHABET, TASKS, Question, questions
from turnout.evaluation.bootstrap import resampled_means
from turnout.features import TextEmbedder
from turnout.nn.adapters import (
    AdapterPool,
    AdapterRouter,
    ArrowRouter,
    GliderRouter,
    MergedAdapters,
    OracleAdapter,
    PhatgooseRouter,
    SingleAdapter,
    train_adapter,
    train_gate,
)
from turnout.nn.flops import executed_flops
from turnout.nn.tiny import Batch, answer_batch, character_tokenizer, prompt_batch, tiny_llama, train

SEED = 0
LEVELS = (2, 3)
TARGETS = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")
TOKENIZER = character_tokenizer(ALPHABET)
RESAMPLES = 2000
DESCRIPTIONS = {
    "add": "add the two numbers",
    "copy": "copy the letters as they are",
    "count": "count how often the letter a occurs",
    "largest": "find the largest of the digits",
    "modulo": "sum the digits and keep the last digit of the sum, modulo ten",
    "parity": "say whether the parity of the ones is odd or even",
    "reverse": "reverse the order of the letters",
    "shift": "shift every letter to the next one of the alphabet",
    "sort": "sort the digits in rising order",
    "subtract": "subtract the second number from the first",
}


NEW_NAMES = {
    "add": "plus", "copy": "repeat", "count": "number", "largest": "top", "modulo": "digitsum",
    "parity": "evenodd", "reverse": "mirror", "shift": "advance", "sort": "order", "subtract": "minus",
}  # fmt: skip
"""Names that no adapter was trained on."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is trained and measured."""

    seeds: int = 3
    base_steps: int = 600
    adapter_steps: int = 100
    gate_steps: int = 100
    rows: int = 24
    gate_rows: int = 8
    rank: int = 8
    reported: int = 30
    chosen: int = 15
    width: int = 48


QUICK = Settings(
    seeds=1, base_steps=4, adapter_steps=2, gate_steps=2, rows=4, gate_rows=2, reported=3, chosen=2, width=16
)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A router, and which global vectors of the queries it is given."""

    router: AdapterRouter
    vectors: str | None = None


def methods() -> dict[str, Method]:
    """Return the routers that need no choice, by name."""
    found = {"merged": Method(router=MergedAdapters())}
    for k in (1, 2, 3):
        found[f"arrow_k{k}"] = Method(router=ArrowRouter(top_k=k))
        found[f"phatgoose_k{k}"] = Method(router=PhatgooseRouter(top_k=k))
    for p in (0.5, 0.75):
        found[f"phatgoose_p{p}"] = Method(router=PhatgooseRouter(top_k=None, top_p=p))
    for kind in ("sample", "task"):
        for alpha in (1, 3, 10, 100):
            found[f"glider_{kind}_a{alpha}"] = Method(router=GliderRouter(alpha=alpha), vectors=kind)
        for k in (1, 3):
            router = GliderRouter(alpha=10.0, top_k=k)
            found[f"glider_{kind}_a10_k{k}"] = Method(router=router, vectors=kind)
    return found


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Questions with their global vectors, and right answers."""

    asked: list[Question]
    vectors: Mapping[str, np.ndarray]

    def of(self, task: str) -> Asked:
        """Return the questions of one task."""
        kept = [i for i, question in enumerate(self.asked) if question.task == task]
        return Asked(
            asked=[self.asked[i] for i in kept], vectors={k: v[kept] for k, v in self.vectors.items()}
        )


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """The text encoder, and a text about each task."""

    embedder: TextEmbedder
    texts: Mapping[str, str]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of texts."""
        return self.embedder.embed([Query(id=str(n), text=text) for n, text in enumerate(texts)])


def drawer(tasks: Sequence[str], rows: int, seed: int, *, is_named: bool = True) -> Callable[[], Batch]:
    """Return a source of endless batches of tasks, with or without their names."""
    rng = make_rng(seed, "train", *tasks)

    def draw() -> Batch:
        found = [questions(str(t), count=1, levels=LEVELS, rng=rng)[0] for t in rng.choice(tasks, size=rows)]
        return answer_batch(
            TOKENIZER, [(q.prompt if is_named else q.prompt.partition(":")[2], q.answer) for q in found]
        )

    return draw


def make_vectors(seed: int) -> Vectors:
    """Return an encoder that has read the descriptions and training questions, and a text for each task."""
    rng = make_rng(seed, "descriptions")
    samples = {t: [q.prompt for q in questions(t, count=20, levels=LEVELS, rng=rng)] for t in TASKS}
    texts = {t: f"{DESCRIPTIONS[t]}. {' '.join(samples[t][:3])}" for t in TASKS}
    every = [*texts.values(), *(prompt for prompts in samples.values() for prompt in prompts)]
    embedder = TextEmbedder(min_documents=1).fit([Query(id=str(n), text=x) for n, x in enumerate(every)])
    return Vectors(embedder=embedder, texts=texts)


def ask(part: str, count: int, seed: int, known: Vectors, *, is_renamed: bool = False) -> Asked:
    """Return `count` fresh questions of each task; the texts about tasks hold other samples than e_i's."""
    rng = make_rng(seed, part)
    asked = [q for t in TASKS for q in questions(t, count=count, levels=LEVELS, rng=rng)]
    if is_renamed:
        asked = [replace(q, prompt=f"{NEW_NAMES[q.task]}:{q.prompt.partition(':')[2]}") for q in asked]
    about = {}
    for task in TASKS:
        shown = questions(task, count=3, levels=LEVELS, rng=rng)
        about[task] = f"{DESCRIPTIONS[task]}. {' '.join(q.prompt for q in shown)}"
    return Asked(
        asked=asked,
        vectors={
            "sample": known.embed([q.prompt for q in asked]),
            "task": known.embed([about[q.task] for q in asked]),
        },
    )


def right(pool: AdapterPool, asked: Asked, **route: Any) -> np.ndarray:
    """Return for each question whether the greedy answer under a route is the right one."""
    ids_BT, mask_BT = prompt_batch(TOKENIZER, [q.prompt for q in asked.asked])
    with torch.no_grad():
        out_BT = pool.generate(
            ids_BT, attention_mask=mask_BT, max_new_tokens=max(LEVELS) + 2, do_sample=False, **route
        )
    given = TOKENIZER.batch_decode(out_BT[:, ids_BT.shape[1] :], skip_special_tokens=True)
    return np.array([x == q.answer for x, q in zip(given, asked.asked, strict=True)], dtype=np.float64)


def judge(pool: AdapterPool, asked: Asked, method: Method) -> np.ndarray:
    """Return `right` of a method, with the query vectors that it reads."""
    queries = None if method.vectors is None else asked.vectors[method.vectors]
    return right(pool, asked, router=method.router, queries=queries)


def by_single(pool: AdapterPool, asked: Asked) -> np.ndarray:
    """Return the accuracy (task asked, adapter) on questions that nothing is reported on."""
    tasks = np.array([q.task for q in asked.asked])
    found = {name: right(pool, asked, router=SingleAdapter(name=name)) for name in pool.names}
    return np.array([[found[name][tasks == task].mean() for name in TASKS] for task in TASKS])


def chosen_glider(pool: AdapterPool, asked: Asked) -> str:
    """Return the sample-level Glider that answers most of the questions that nothing is reported on."""
    options = {n: m for n, m in methods().items() if m.vectors == "sample"}
    scores = {name: judge(pool, asked, method).mean() for name, method in options.items()}
    return max(scores, key=scores.__getitem__)


def held_in(pool: AdapterPool, asked: Asked, single: str, glider: str, seed: int) -> dict[str, np.ndarray]:
    """Return `right` of every method, all adapters being there."""
    rng = make_rng(seed, "random adapter")
    draw = [str(name) for name in rng.choice(pool.names, size=len(asked.asked))]
    found = {
        "base": right(pool, asked, router=None),
        "random": right(pool, asked, router=OracleAdapter(), tasks=draw),
        "best_single": right(pool, asked, router=SingleAdapter(name=single)),
        "oracle": right(pool, asked, router=OracleAdapter(), tasks=[q.task for q in asked.asked]),
    }
    found |= {name: judge(pool, asked, method) for name, method in methods().items()}
    return found | {"glider_chosen": found[glider]}


def held_out(
    pool: AdapterPool, asked: Asked, accuracy_TE: np.ndarray, glider: str, seed: int
) -> dict[str, np.ndarray]:
    """Return `right` of every method, each task being asked of a pool without its adapter."""
    rows: list[dict[str, np.ndarray]] = []
    for index, task in enumerate(TASKS):
        others = np.delete(np.arange(len(TASKS)), index)
        mean_E = accuracy_TE[others].mean(axis=0)
        single = list(TASKS)[others[mean_E[others].argmax()]]
        lora, gate, vector = pool.get(task), pool.gate(task), pool.vector(task)
        pool.remove(task)
        mine = asked.of(task)
        draw = [str(n) for n in make_rng(seed, "random", task).choice(pool.names, size=len(mine.asked))]
        found = {
            "base": right(pool, mine, router=None),
            "random": right(pool, mine, router=OracleAdapter(), tasks=draw),
            "best_single": right(pool, mine, router=SingleAdapter(name=single)),
        }
        found |= {name: judge(pool, mine, method) for name, method in methods().items()}
        rows.append(found | {"glider_chosen": found[glider]})
        pool.add(lora)
        pool.set_gate(task, gate)
        pool.describe(task, vector)
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def one_seed(base: PreTrainedModel, seed: int, settings: Settings) -> dict[str, Any]:
    """Train ten adapters and gates, and return what every method answered."""
    known = make_vectors(seed)
    with AdapterPool(model=base, targets=TARGETS) as pool:
        for number, task in enumerate(TASKS):
            train_adapter(
                pool, task, drawer([task], settings.rows, seed), rank=settings.rank,
                steps=settings.adapter_steps, lr=1e-2, seed=100 * seed + number,
            )  # fmt: skip
            gate_draw = drawer([task], settings.gate_rows, seed + 1000)
            train_gate(pool, task, gate_draw, steps=settings.gate_steps)
            print(f"seed {seed}: {task}", flush=True)
        pool.describe_texts(known.texts, known.embed)
        choice = ask("choice", settings.chosen, seed, known)
        reported = ask("report", settings.reported, seed, known)
        accuracy_TE = by_single(pool, choice)
        single = list(TASKS)[accuracy_TE.mean(axis=0).argmax()]
        glider = chosen_glider(pool, choice)
        with pool.routed(router=PhatgooseRouter(top_k=2)), pool.recording() as trace:
            share = _share_of_own(pool, reported, trace)
        return {
            "single": single,
            "glider": glider,
            "held_in": held_in(pool, reported, single, glider, seed),
            "renamed": held_in(
                pool, ask("renamed", settings.reported, seed, known, is_renamed=True), single, glider, seed
            ),
            "held_out": held_out(pool, reported, accuracy_TE, glider, seed),
            "phatgoose_share_of_own_adapter": share,
            "accuracy_TE": accuracy_TE.tolist(),
            "cost": cost(pool, reported) if seed == 0 else None,
        }


@torch.no_grad()
def _share_of_own(pool: AdapterPool, asked: Asked, trace: dict[str, list[torch.Tensor]]) -> float:
    ids_BT, mask_BT = prompt_batch(TOKENIZER, [q.prompt for q in asked.asked])
    pool.model(ids_BT, attention_mask=mask_BT)
    own_B = torch.tensor([pool.names.index(q.task) for q in asked.asked])
    index = own_B[:, None, None].expand(-1, ids_BT.shape[1], 1)
    shares = [
        (w_BTE.gather(-1, index)[..., 0] * mask_BT).sum() / mask_BT.sum() for (w_BTE,) in trace.values()
    ]
    return float(torch.stack(shares).mean())


@torch.no_grad()
def cost(pool: AdapterPool, asked: Asked) -> dict[str, dict[str, float]]:
    """Return FLOPs and the median time of one forward pass over 64 prompts, by what serves it."""
    ids_BT, mask_BT = prompt_batch(TOKENIZER, [q.prompt for q in asked.asked[:64]])
    routes: dict[str, AdapterRouter | None] = {
        "base": None,
        "single": SingleAdapter(name="add"),
        "merged": MergedAdapters(),
    }
    routes |= {"arrow": ArrowRouter(), "phatgoose": PhatgooseRouter()}
    found = {}
    for name, router in routes.items():
        with pool.routed(router=router) if router is not None else pool.none():
            _, flops = executed_flops(lambda: pool.model(ids_BT, attention_mask=mask_BT))
            times = []
            for _ in range(7):
                start = time.perf_counter()
                pool.model(ids_BT, attention_mask=mask_BT)
                times.append(time.perf_counter() - start)
        found[name] = {"flops": float(flops), "forward_s": float(np.median(times))}
    return found


def summarise(runs: Sequence[Mapping[str, Any]], part: str) -> dict[str, dict[str, Any]]:
    """Return mean accuracy over questions and seeds with 95 % intervals, and the gain over PHATGOOSE."""
    names = list(runs[0][part])
    values_QP = np.column_stack([np.concatenate([run[part][name] for run in runs]) for name in names])
    means_BP = resampled_means(values_QP, num_resamples=RESAMPLES, rng=make_rng(SEED, "bootstrap"))
    anchor = names.index("phatgoose_k2")
    found = {}
    for column, name in enumerate(names):
        low, high = np.quantile(means_BP[:, column], [0.025, 0.975])
        gain_B = means_BP[:, column] - means_BP[:, anchor]
        gain_low, gain_high = np.quantile(gain_B, [0.025, 0.975])
        mean_P = values_QP.mean(axis=0)
        per_seed = [float(run[part][name].mean()) for run in runs]
        found[name] = {
            "accuracy": float(mean_P[column]), "low": float(low), "high": float(high),
            "gain_over_phatgoose": float(mean_P[column] - mean_P[anchor]),
            "gain_low": float(gain_low), "gain_high": float(gain_high),
            "seeds": per_seed,
        }  # fmt: skip
    return found


def claims(held_in: Mapping[str, Any], renamed: Mapping[str, Any], held_out: Mapping[str, Any]) -> list[str]:
    """Return what the papers claim, each beside what was measured here."""
    pairs = [
        ("Glider is substantially better than PHATGOOSE held-in", held_in, "glider_chosen"),
        ("Glider (the task is told, alpha 100) is substantially better held-in", held_in, "glider_task_a100"),
        ("Glider stays as good as PHATGOOSE held-out", held_out, "glider_chosen"),
        ("Glider stays as good as PHATGOOSE on tasks it has not seen (renamed)", renamed, "glider_chosen"),
        ("PHATGOOSE is better than merging, held-out (gain is of merging)", held_out, "merged"),
        ("PHATGOOSE is better than Arrow, held-out (gain is of Arrow)", held_out, "arrow_k2"),
    ]
    lines = []
    for text, part, name in pairs:
        e = part[name]
        lines.append(
            f"paper: {text}; here: {e['accuracy']:.3f}, {e['gain_over_phatgoose']:+.3f} against PHATGOOSE "
            f"[{e['gain_low']:+.3f}, {e['gain_high']:+.3f}]"
        )
    return lines


def main(arguments: list[str]) -> None:
    """Write `adapters.json` and `adapters.png`."""
    torch.set_num_threads(1)
    is_quick = "--quick" in arguments
    settings = QUICK if is_quick else Settings()
    start = time.perf_counter()
    base = tiny_llama(vocab_size=len(TOKENIZER), width=settings.width, layers=3, positions=64, seed=SEED)
    draw = drawer(list(TASKS), 32, SEED, is_named=False)
    losses = train(base, draw, steps=settings.base_steps, lr=4e-3)
    print(f"base: loss {np.mean(losses[-20:]):.3f}", flush=True)
    runs = [one_seed(base, seed, settings) for seed in range(settings.seeds)]
    parts = {part: summarise(runs, part) for part in ("held_in", "renamed", "held_out")}
    result = {
        "settings": asdict(settings), "levels": LEVELS, "tasks": list(TASKS), **parts,
        "claims": claims(**parts),
        "single_chosen": [run["single"] for run in runs], "glider_chosen": [run["glider"] for run in runs],
        "phatgoose_share_of_own_adapter": [run["phatgoose_share_of_own_adapter"] for run in runs],
        "single_accuracy_TE": runs[0]["accuracy_TE"], "cost": runs[0]["cost"],
        "wall_s": time.perf_counter() - start,
    }  # fmt: skip
    for name in parts["held_in"]:
        shown = [f"{part} {found[name]['accuracy']:.3f}" for part, found in parts.items() if name in found]
        print(f"{name:22s}", *shown)
    print("\n".join(result["claims"]))
    if not is_quick:
        print(record.write("adapters", result, seed=SEED).name)
        print(adapters_picture.draw(result, record.RESULTS / "adapters.png").name)


if __name__ == "__main__":
    main(sys.argv[1:])
