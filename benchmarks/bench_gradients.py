"""Bias and variance of gradient estimators against the exact gradient of small routing problems."""

from __future__ import annotations

import argparse
from dataclasses import asdict

import numpy as np
import torch

from benchmarks.record import RESULTS, write
from turnout.nn.gradients.truth import ESTIMATORS, Problem, judge

SHARPNESS = (0.5, 1.0, 2.0)
EXPERTS = (4, 16)
RESAMPLES = 2000


def make_problem(random: torch.Generator, experts: int, sharpness: float) -> Problem:
    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random, dtype=torch.double)

    return Problem(outputs_ED=2 * draw(experts, 8), logits_E=sharpness * draw(experts), target_D=draw(8))


def interval(values: list[float], rng: np.random.Generator) -> dict[str, float]:
    array = np.array(values)
    means = array[rng.integers(len(array), size=(RESAMPLES, len(array)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(array.mean()), "low": float(low), "high": float(high)}


def draw_picture(rows: list[dict[str, object]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.4), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(EXPERTS), sharey=True)
    for axes, experts in zip(panels, EXPERTS, strict=True):
        for number, name in enumerate(ESTIMATORS):
            line = [r for r in rows if r["experts"] == experts and r["estimator"] == name]
            xs = [max(float(r["deviation"]["value"]), 0.05) for r in line]  # type: ignore[index]
            ys = [max(float(r["bias"]["value"]), 0.003) for r in line]  # type: ignore[index]
            axes.plot(xs, ys, marker="o", label=name, color=f"C{number}")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(f"{experts} experts; points: sharpness {', '.join(map(str, SHARPNESS))}", fontsize=9)
        axes.set_xlabel("deviation of one sample / |gradient| (at 0.05: none)")
        axes.grid(visible=True, color="#e5e7eb")
    panels[0].set_ylabel("bias / |gradient|")
    # Below the panels: within the first it hid an estimator.
    marks, names = panels[0].get_legend_handles_labels()
    figure.legend(marks, names, loc="outside lower center", ncols=len(names), fontsize=7.5, frameon=False)
    figure.savefig(RESULTS / "gradients.png", metadata={"Software": "turnout"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=40)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rng, rows = np.random.default_rng(options.seed), []
    for experts in EXPERTS:
        for sharpness in SHARPNESS:
            random = torch.Generator().manual_seed(options.seed)
            problems = [make_problem(random, experts, sharpness) for _ in range(options.problems)]
            for name, estimator in ESTIMATORS.items():
                found = [asdict(judge(p, estimator, num_samples=options.samples)) for p in problems]
                measures = {key: interval([f[key] for f in found], rng) for key in found[0]}
                rows.append({"experts": experts, "sharpness": sharpness, "estimator": name, **measures})
                print(
                    f"E={experts:<3} sharp={sharpness:<4} {name:<30} bias {measures['bias']['value']:.3f} "
                    f"deviation {measures['deviation']['value']:.2f} cosine {measures['cosine']['value']:.3f}"
                )
    draw_picture(rows)
    write(
        "gradients",
        {"problems": options.problems, "samples": options.samples, "rows": rows},
        seed=options.seed,
    )


if __name__ == "__main__":
    main()
