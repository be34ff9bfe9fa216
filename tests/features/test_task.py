"""The tasks are learned as maximum likelihood says, and told apart on texts that were held out."""

from __future__ import annotations

import numpy as np
import pytest

from tests.features.corpora import real_queries
from turnout.core import InputError, Query
from turnout.core.artifact import load, save
from turnout.datasets import load as load_table
from turnout.features import TaskEmbedder, TextEmbedder


def test_weights_are_the_maximum_of_the_penalised_likelihood() -> None:
    """At the optimum the gradient vanishes: expected and observed features agree but for the penalty."""
    queries = load_table("open9").queries[::12]
    embedder = TextEmbedder(num_features=16)
    task = TaskEmbedder(embedder=embedder, penalty=1e-2, num_steps=400).fit(queries)
    assert task.embedder_ is not None
    assert task.weight_FC_ is not None
    x_QF = np.column_stack([task.embedder_.embed(queries), np.ones(len(queries))]).astype(np.float64)
    observed_QC = np.array([[query.task == label for label in task.labels] for query in queries], float)
    ridge_FC = 1e-2 * task.weight_FC_.astype(np.float64)
    ridge_FC[-1] = 0
    gradient_FC = x_QF.T @ (observed_QC - task.embed(queries)) / len(queries) - ridge_FC
    assert np.abs(gradient_FC).max() < 1e-4
    # Without weights every task is as likely as the next, and the gradient does not vanish.
    even_QC = np.full_like(observed_QC, 1 / len(task.labels))
    assert np.abs(x_QF.T @ (observed_QC - even_QC) / len(queries)).max() > 1e-2


def test_held_out_texts_are_told_apart() -> None:
    queries = load_table("open9").queries
    train, test = queries[::2], queries[1::2]
    task = TaskEmbedder().fit(train)
    right = [task.best(query)[0] == query.task for query in test]
    counts = [sum(query.task == label for query in test) for label in task.labels]
    assert np.mean(right) > 0.85
    assert max(counts) < 0.5 * len(test)
    np.testing.assert_allclose(task.embed(test[:50]).sum(axis=1), 1, atol=1e-5)


def test_an_artifact_gives_the_same_answers(tmp_path: object) -> None:
    queries = load_table("open9").queries[::20]
    task = TaskEmbedder(embedder=TextEmbedder(num_features=16)).fit(queries)
    again = load(save(task, str(tmp_path)))
    assert isinstance(again, TaskEmbedder)
    assert again.labels == task.labels
    np.testing.assert_array_equal(again.embed(queries[:9]), task.embed(queries[:9]))


def test_without_tasks_there_is_one_empty_column() -> None:
    queries = [Query(id=str(n), text=query.text) for n, query in enumerate(real_queries()[:40])]
    task = TaskEmbedder(embedder=TextEmbedder(num_features=4)).fit(queries)
    assert task.labels == ()
    assert task.embed(queries[:3]).tolist() == [[0.0]] * 3
    with pytest.raises(InputError, match="no task"):
        task.best(queries[0])
