"""The questions that the benchmark of depth teaches a base."""

from __future__ import annotations

import numpy as np

from benchmarks.bench_depth_chains import Size, draw_questions, taught
from benchmarks.bench_depth_drllm import TOKENIZER, as_batch
from turnout.datasets.chains import walked
from turnout.nn.tiny import IGNORED


def test_each_step_of_a_chain_is_taught_where_it_is_taken_and_no_answer_changes() -> None:
    asked = draw_questions(Size(), 60, np.random.default_rng(0), levels=[1, 2, 6])
    assert {question.task for question in asked} == {"chain", "copy"}
    plain, batch = as_batch(asked), taught(asked)
    assert (batch.labels_BT[plain.labels_BT != IGNORED] == plain.labels_BT[plain.labels_BT != IGNORED]).all()
    for row, question in enumerate(asked):
        before = TOKENIZER.convert_ids_to_tokens(batch.input_ids_BT[row, :-1].tolist())
        labels = batch.labels_BT[row, 1:].tolist()
        said = [
            (token, TOKENIZER.decode(label))
            for token, label in zip(before, labels, strict=True)
            if label >= 0
        ]
        steps = (
            [*zip(question.prompt[7:-1], walked(question), strict=True)] if question.task == "chain" else []
        )
        assert said[: len(steps)] == steps
        assert "".join(letter for _, letter in said[len(steps) : -1]) == question.answer
