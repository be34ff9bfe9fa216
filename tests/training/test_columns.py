"""Numbers that are handed over go the whole way: table, router, deployment, report, command line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from turnout.cli.main import main
from turnout.core import Candidate, Goal, OutcomeTable, Query
from turnout.core.artifact import load, save
from turnout.core.errors import InputError
from turnout.features import CachedEmbedder, ColumnsEmbedder, JoinedEmbedder, TextEmbedder
from turnout.policies import Deployment
from turnout.training import study, train, train_and_test

NEEDS_TRANSFORMERS = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="hidden states are read from a model"
)
QUESTION = "What is to be seen here?"


def images(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures of 8 x 8 pixels and three colours, and whether each shows stripes (or one blob)."""
    rng = np.random.default_rng(seed)
    is_striped = rng.random(num) < 0.5
    wave = np.sin(np.arange(8) * np.pi / 2 + rng.uniform(0, 2 * np.pi, (num, 1)))
    stripes = np.broadcast_to(wave[:, :, None, None], (num, 8, 8, 3))
    row, column = np.mgrid[:8, :8]
    centre = rng.uniform(2, 5, (num, 2, 1, 1))
    blob = 2.0 * np.exp(-((row - centre[:, 0]) ** 2 + (column - centre[:, 1]) ** 2) / 4.0) - 0.5
    shown = np.where(is_striped[:, None, None, None], stripes, blob[..., None])
    return shown + 0.3 * rng.normal(size=shown.shape), is_striped


def features(shown: np.ndarray) -> np.ndarray:
    """Return features of images as they are usual: means of colours, and contrast along rows and columns."""
    down, along = np.diff(shown, axis=1).std(axis=(1, 2, 3)), np.diff(shown, axis=2).std(axis=(1, 2, 3))
    return np.column_stack([shown.mean(axis=(1, 2)), down, along])


def table_of(
    x_QF: np.ndarray, quality_QM: np.ndarray, *, tag: str, texts: list[str], needs: str | None
) -> OutcomeTable:
    """Return a table whose queries carry their numbers in a tag."""
    num, pool = quality_QM.shape
    return OutcomeTable(
        queries=[
            Query(
                id=f"q{i}",
                text=texts[i],
                needs=frozenset([needs] if needs else []),
                tags={tag: " ".join(f"{value:.6g}" for value in x_QF[i])},
            )
            for i in range(num)
        ],
        candidates=[
            Candidate(model=name, capabilities=frozenset(["vision"])) for name in ("small", "large")[:pool]
        ],
        query_index=np.repeat(np.arange(num), pool),
        candidate_index=np.tile(np.arange(pool), num),
        quality=quality_QM.ravel(),
        cost_usd=np.tile([1e-4, 1e-3], num),
    )  # fmt: skip


def pictured(num: int = 400) -> OutcomeTable:
    """Return one question about many images: the small candidate knows blobs, the large one stripes."""
    shown, is_striped = images(num)
    rng = np.random.default_rng(1)
    right_QM = np.where(is_striped[:, None], [0.1, 0.9], [0.9, 0.6])
    quality_QM = (rng.random((num, 2)) < right_QM).astype(float)
    return table_of(features(shown), quality_QM, tag="image", texts=[QUESTION] * num, needs="vision")


@pytest.mark.parametrize("router", ["auto", "knn"])
def test_features_of_images_decide_where_every_text_is_the_same(router: str, tmp_path: Path) -> None:
    table = pictured()
    train_part, test_part = train_and_test(table)
    reads = JoinedEmbedder(embedders=(TextEmbedder(), ColumnsEmbedder(names=("image",))))
    deployment = train(train_part, Goal(), router=router, embedder=reads)
    assert deployment.plan().is_open
    save(deployment, tmp_path / "deployment")
    loaded = load(tmp_path / "deployment")
    assert isinstance(loaded, Deployment)
    chosen = loaded.decide(test_part.queries)
    assert chosen.names_Q == deployment.decide(test_part.queries).names_Q
    report = study(loaded, train_part, test_part, num_prices=10, num_resamples=200)
    gain = report["router"].vs_best_single
    assert gain.low is not None
    assert gain.low > 0.0
    assert (report["router"].oracle_share.value or 0.0) > 0.3
    # The baseline is shown the images too.
    assert len(report["knn"].shares) == 2


def test_without_the_numbers_nothing_can_be_told_apart() -> None:
    train_part, test_part = train_and_test(pictured())
    blind = train(train_part, Goal(), router="knn")
    assert len(set(blind.decide(test_part.queries).names_Q)) == 1


def test_the_same_question_about_two_images_is_two_queries_and_about_one_is_one() -> None:
    shown = {"needs": frozenset(["vision"]), "tags": {"image": "0.1 0.2", "source": "camera"}}
    one = Query(id="a", text=QUESTION, **shown)  # type: ignore[arg-type]
    other = Query(id="b", text=QUESTION, needs=one.needs, tags={"image": "0.3 0.2"})
    assert one.content == f"{QUESTION}\nimage 0.1 0.2"
    assert one.content != other.content
    assert Query(id="c", text=QUESTION, tags={"image": "0.1 0.2"}).content == QUESTION
    assert Query(id="d", text=None, needs=one.needs).content is None
    cached = CachedEmbedder(embedder=ColumnsEmbedder(names=("image",)).fit([one, other]))
    x_QF = cached.embed([one, other])
    assert (x_QF[0] != x_QF[1]).any()


def test_the_command_line_fits_and_routes_by_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown, is_striped = images(6, seed=9)
    table = pictured().save(tmp_path / "table")
    out = str(tmp_path / "out")
    assert main(["fit", str(table), "--columns", "image", "--router", "knn", "--out", out]) == 0
    assert main(["evaluate", out, str(table), "--resamples", "50"]) == 0
    capsys.readouterr()
    for x_F, is_stripes in zip(features(shown), is_striped.tolist(), strict=True):
        tag = "image=" + " ".join(f"{value:.4g}" for value in x_F)
        assert main(["route", out, QUESTION, "--tag", tag, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["decisions"][0]["candidate"]
        assert found == ("large" if is_stripes else "small")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--columns", "imgae"], "no query has this tag; got: 'imgae'; did you mean 'image'"),
        (["--columns", ","], "--columns names none"),
    ],
)
def test_a_mistyped_tag_is_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pictured(60).save(tmp_path / "table")
    assert main(["fit", str(table), *arguments, "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("tag", ["image", "=1", "image=1 2"])
def test_a_tag_of_another_form_is_refused(
    tag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pictured(120).save(tmp_path / "table")
    out = str(tmp_path / "out")
    assert main(["fit", str(table), "--columns", "image", "--router", "knn", "--out", out]) == 0
    assert main(["route", out, QUESTION, "--tag", tag]) == 1
    error = capsys.readouterr().err
    assert "NAME=VALUE" in error or "5 numbers, as in the training queries" in error


def test_an_embedder_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="train: embedder"):
        train(pictured(60), embedder="text")  # type: ignore[arg-type]
