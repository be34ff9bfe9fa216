"""Hidden states of a real model go the whole way: table, router, deployment, command line."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from turnout.cli.main import main
from turnout.core import Candidate, Goal, OutcomeTable, Query
from turnout.core.artifact import load, save
from turnout.features import ColumnsEmbedder
from turnout.policies import Deployment
from turnout.routers.logistic_heads import fit_logistic
from turnout.training import train, train_and_test

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="hidden states are read from a model"
)
WORDS = "river stone maple winter copper lantern garden silver harbor meadow violin engine".split()
HARD = frozenset(WORDS[:6])
NUM_LAYERS = 3


@cache
def states(texts: tuple[str, ...]) -> np.ndarray:
    """Return the hidden states of the last token behind the embeddings and each block, shape (Q, L, D)."""
    import torch
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    model = LlamaModel(
        LlamaConfig(
            vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=NUM_LAYERS - 1,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=16,
        )
    ).eval()  # fmt: skip
    ids = torch.tensor([[WORDS.index(word) for word in text.split()] for text in texts])
    with torch.no_grad():
        found = model(input_ids=ids, output_hidden_states=True).hidden_states
    return np.stack([layer[:, -1].numpy() for layer in found], axis=1).astype(np.float64)


def written(x_F: np.ndarray) -> str:
    return " ".join(f"{value:.5g}" for value in x_F.ravel())


@cache
def asked(num: int = 500) -> OutcomeTable:
    """Return texts whose last word alone says who is right, which no bag of words tells."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 9)) for _ in range(num)]
    is_hard_Q = np.array([text.split()[-1] in HARD for text in texts])
    state_QLD = states(tuple(texts))
    # A probe in the sense of the paper: one number, learned on other texts than those that are routed.
    other = [" ".join(rng.choice(WORDS, 9)) for _ in range(300)]
    hard_N1 = np.array([[text.split()[-1] in HARD] for text in other], np.float64)
    probe = fit_logistic(states(tuple(other)).reshape(300, -1), hard_N1, penalty=0.1)
    said_Q = probe.predict(state_QLD.reshape(num, -1))[0][:, 0]
    right_QM = np.where(is_hard_Q[:, None], [0.1, 0.9], [0.9, 0.6])
    quality_QM = (rng.random((num, 2)) < right_QM).astype(float)
    return OutcomeTable(
        queries=[
            Query(id=f"q{i}", text=text, tags={"hidden": written(state), "probe": f"{said:.4f}"})
            for i, (text, state, said) in enumerate(zip(texts, state_QLD, said_Q.tolist(), strict=True))
        ],
        candidates=[Candidate(model="small"), Candidate(model="large")],
        query_index=np.repeat(np.arange(num), 2), candidate_index=np.tile([0, 1], num),
        quality=quality_QM.ravel(), cost_usd=np.tile([1e-4, 1e-3], num),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("router", "columns"),
    [
        ("probe", ColumnsEmbedder(names=("hidden",), num_layers=NUM_LAYERS)),
        ("ridge", ColumnsEmbedder(names=("hidden",))),
        ("ridge", ColumnsEmbedder(names=("probe",))),
        ("auto", ColumnsEmbedder(names=("probe",))),
    ],
    ids=["probe on layers", "ridge on layers", "ridge on a signal", "auto on a signal"],
)
def test_hidden_states_and_what_a_probe_says_of_them_decide(
    router: str, columns: ColumnsEmbedder, tmp_path: Path
) -> None:
    train_part, test_part = train_and_test(asked())
    deployment = train(train_part, Goal(), router=router, embedder=columns)
    assert deployment.plan().is_open
    save(deployment, tmp_path / "deployment")
    loaded = load(tmp_path / "deployment")
    assert isinstance(loaded, Deployment)
    names = loaded.decide(test_part.queries).names_Q
    wanted = ["large" if query.words.split()[-1] in HARD else "small" for query in test_part.queries]
    assert np.mean([name == want for name, want in zip(names, wanted, strict=True)]) > 0.9


def test_the_text_alone_does_not_say_it() -> None:
    train_part, test_part = train_and_test(asked())
    deployment = train(train_part, Goal(), router="ridge")
    names = deployment.router.estimate(test_part.queries).quality_QM.argmax(axis=1)
    wanted = [int(query.words.split()[-1] in HARD) for query in test_part.queries]
    assert np.mean(names == wanted) < 0.75


def test_the_command_line_routes_by_the_states_of_a_new_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = asked().save(tmp_path / "table"), str(tmp_path / "out")
    assert main(["fit", str(table), "--columns", "hidden", "--router", "ridge", "--out", out]) == 0
    capsys.readouterr()
    right = 0
    for last in WORDS:
        text = " ".join([*WORDS[3:9], last])
        tag = f"hidden={written(states((text,))[0])}"
        assert main(["route", out, text, "--tag", tag, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["decisions"][0]["candidate"]
        right += found == ("large" if last in HARD else "small")
    assert right >= 10
