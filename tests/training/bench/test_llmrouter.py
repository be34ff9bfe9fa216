"""LLMRouter takes part by its own files and classes; a package that reads the same files stands for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.routers.tables import real_table
from turnout.core.errors import MissingExtraError
from turnout.training.bench.cell import run_cell
from turnout.training.bench.contestants import fit_contestant
from turnout.training.bench.llmrouter import PYTHON, Worker
from turnout.training.bench.prepared import prepare, read_prepared

pytest.importorskip("torch")

# It reads what LLMRouter 0.4.0 reads (data_loader.py, knnrouter/router.py) and answers by the nearest query.
PACKAGE = """
import json, sys
import numpy as np, torch

class Nearest:
    def fit(self, x, names):
        self.x, self.names = np.stack(x), np.array(names)
    def predict(self, x):
        return self.names[(x @ self.x.T).argmax(axis=1)]

class KNNRouter:
    def __init__(self, path):
        print("noise on stdout, as the real one makes")
        config = json.load(open(path))
        vectors = torch.load(config["data_path"]["query_embedding_data"])
        best = {}
        for line in open(config["data_path"]["routing_data_train"]):
            row = json.loads(line)
            if row["performance"] > best.get(row["query"], (-1.0, None))[0]:
                best[row["query"]] = (row["performance"], row["model_name"], row["embedding_id"])
        assert not config["hparam"]
        self.vectors = [vectors[number].numpy() for _, _, number in best.values()]
        self.names = [name for _, name, _ in best.values()]

class KNNRouterTrainer:
    def __init__(self, router):
        self.router, self.model = router, Nearest()
    def train(self):
        self.model.fit(self.router.vectors, self.router.names)
"""

# In 0.4.0 the trainer of this one is called without the word Router, and its model answers with numbers.
MLP = """
import json
from llmrouter.models.knnrouter import KNNRouter

class MLPRouter(KNNRouter):
    def __init__(self, path):
        super().__init__(path)
        self.idx_to_model = sorted(set(self.names))

class Last:
    def predict(self, x):
        return (x[:, 0] * 0).long() + 1

class MLPTrainer:
    def __init__(self, router):
        self.model = Last()
    def train(self):
        pass
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare("small", real_table(), tmp_path_factory.mktemp("sets"), seed=0)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "llmrouter" / "models"
    for name, text in (("knnrouter", PACKAGE), ("mlprouter", MLP)):
        (models / name).mkdir(parents=True)
        (models / name / "__init__.py").write_text(text)
    for folder in (models.parent, models):
        (folder / "__init__.py").write_text("")
    monkeypatch.setenv(PYTHON, sys.executable)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.usefixtures("installed")
def test_its_classes_learn_from_our_vectors_and_choose(place: Path) -> None:
    given = read_prepared(place)
    found = fit_contestant("llmrouter_knn", given, seed=0)
    x_NF = np.asarray(given.embedder.embed(given.train.queries))
    x_QF = np.asarray(given.embedder.embed(given.test.queries))
    best_N = given.train.quality_QM.argmax(axis=1)
    expected = [given.train.names[best_N[row]] for row in (x_QF @ x_NF.T).argmax(axis=1)]
    assert list(found.decide(given.test.queries).names_Q) == expected
    assert len(set(expected)) > 1
    assert not found.has_curve
    assert found.fit_s is not None
    assert found.fit_s > 0.0
    with pytest.raises(MissingExtraError, match="svmrouter"):
        Worker("llmrouter_svm", given.train, x_NF)


@pytest.mark.usefixtures("installed")
def test_the_trainer_of_the_mlp_has_another_kind_of_name(place: Path) -> None:
    given = read_prepared(place)
    found = fit_contestant("llmrouter_mlp", given, seed=0)
    assert len(set(found.decide(given.test.queries).names_Q)) == 1


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("work", "name", "limit", "said"),
    [
        ("__import__('time').sleep(60)", "WAIT_S", 0.3, "0.005 minutes"),
        ("while True: pass", "LIMIT_S", 3, "0.05 minutes of the processor"),
    ],
    ids=["sleeps", "computes"],
)
def test_who_does_not_finish_becomes_a_row_that_says_so(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    work: str,
    name: str,
    limit: float,
    said: str,
) -> None:
    slow = "from llmrouter.models.knnrouter import KNNRouter as SVMRouter, KNNRouterTrainer as Fast\n"
    slow += f"class SVMRouterTrainer(Fast):\n    def train(self):\n        {work}\n"
    folder = tmp_path / "llmrouter" / "models" / "svmrouter"
    folder.mkdir()
    (folder / "__init__.py").write_text(slow)
    monkeypatch.setattr(f"turnout.training.bench.llmrouter.{name}", limit)
    cell = run_cell(place, "llmrouter_svm", seed=0)
    assert "has not finished" in cell["error"]
    assert said in cell["error"]
    assert "pip install" not in cell["error"]


def test_without_an_installation_it_says_what_to_do(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON, raising=False)
    with pytest.raises(MissingExtraError, match="pip install llmrouter-lib"):
        fit_contestant("llmrouter_mf", read_prepared(place), seed=0)
