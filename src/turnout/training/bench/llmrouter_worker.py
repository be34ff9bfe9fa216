"""This module is run by the Python of an installation of LLMRouter; it imports nothing of turnout.

It reads one JSON line `{"folder": ..., "method": ..., "limit_s": ...}`, trains LLMRouter's own router with
LLMRouter's own trainer on the files in the folder, and answers `{"fit_s": ..., "peak_mb": ...}`. Then it
answers every line `{"rows": [[...], ...]}` of vectors with `{"chosen": [names]}`. After `limit_s` seconds of
the processor it ends. What its libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {"knn": {}, "svm": {}, "mlp": {}, "mf": {}}
"""What stands in each router's `hparam`: nothing, so that all is as it comes."""


def main() -> int:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(**values: object) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    # The folder of this script holds modules of ours, one of them called like the package.
    sys.path = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]
    wanted = json.loads(sys.stdin.readline())
    bound(wanted["limit_s"])
    try:
        choose, fit_s = learn(Path(wanted["folder"]), wanted["method"])
    except Exception as error:  # noqa: BLE001 - another project's code; the other side makes a row of it
        answer(error=f"{type(error).__name__}: {error}")
        return 1
    answer(fit_s=fit_s, peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    for line in sys.stdin:
        answer(chosen=choose(json.loads(line)["rows"]))
    return 0


def bound(limit_s: int) -> None:
    """Let this process be ended (SIGXCPU) once it has taken so many seconds of the processor."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = limit_s if hard == resource.RLIM_INFINITY else min(limit_s, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def learn(folder: Path, method: str) -> tuple[Callable[[list[list[float]]], list[str]], float]:
    """Return a function from vectors to names, and the seconds of the processor that training took."""
    np, torch = import_module("numpy"), import_module("torch")
    torch.manual_seed(0)
    x_NF = np.load(folder / "vectors.npy")
    torch.save(torch.from_numpy(x_NF), folder / "vectors.pt")
    stem = method.upper() if method != "mf" else "MF"
    module = import_module(f"llmrouter.models.{method}router")
    config = folder / f"{method}.yaml"
    # JSON is YAML.
    config.write_text(json.dumps(settings(folder, method, x_NF.shape[1])), encoding="utf-8")
    started = time.process_time()
    router = getattr(module, f"{stem}Router")(str(config))
    trainer = _trainer(module, stem)(router)
    trainer.train()
    fit_s = time.process_time() - started
    return chooser(method, router, trainer.model), fit_s


def _trainer(module: Any, stem: str) -> Any:
    """Return the class that trains; that of the MLP leaves the word Router out of its name."""
    name = f"{stem}RouterTrainer"
    return getattr(module, name if hasattr(module, name) else f"{stem}Trainer")


def settings(folder: Path, method: str, num_features: int) -> dict[str, Any]:
    """Return the configuration file of one router."""
    hparam = {**SETTINGS[method], **({"text_dim": num_features} if method == "mf" else {})}
    kept = str(folder / f"{method}.{'pkl' if method in ('knn', 'svm') else 'pt'}")
    return {
        "data_path": {
            "query_embedding_data": str(folder / "vectors.pt"),
            "routing_data_train": str(folder / "routing.jsonl"),
            "llm_data": str(folder / "llm.json"),
        },
        "model_path": {
            "ini_model_path": str(folder / "none"),
            "save_model_path": kept,
            "load_model_path": kept,
        },
        "hparam": hparam,
    }


def chooser(method: str, router: Any, model: Any) -> Callable[[list[list[float]]], list[str]]:
    """Return what the router's `route_single` does once it has embedded the text and loaded the model."""
    np, torch = import_module("numpy"), import_module("torch")

    def choose(rows: list[list[float]]) -> list[str]:
        x_QF = np.asarray(rows, np.float32)
        if method in ("knn", "svm"):
            return [str(name) for name in model.predict(x_QF)]
        with torch.no_grad():
            x = torch.from_numpy(x_QF)
            if method == "mlp":
                found = model.predict(x)
            else:
                projected = model.text_proj(x)
                found = torch.stack([model.score_all(row) for row in projected]).argmax(dim=1)
        return [router.idx_to_model[index] for index in found.tolist()]

    return choose


if __name__ == "__main__":
    sys.exit(main())
