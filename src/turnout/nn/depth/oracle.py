"""This module asks which depths answer which questions, as oracles and `regret` ask it."""

from __future__ import annotations

import numpy as np
import torch

from turnout.nn.depth.contract import MOST_CALLS
from turnout.nn.depth.drllm.labels import Labels
from turnout.nn.depth.duo.problem import Floats, Ints, Oracle, Problem
from turnout.nn.depth.rewards import right_answers, take_questions
from turnout.nn.depth.routed import RoutedDepth
from turnout.nn.tiny import Batch


def answer_problem(routed: RoutedDepth, batch: Batch) -> Problem:
    """Return the problem of answering the questions of `batch`: 0 for a right answer, 1 for a wrong one.

    The items are the questions, a pattern is a count per block (0 skip, 1 execute, 2 repeat), and the budget
    counts calls of blocks. `exhaustive`, `greedy` and the other oracles search it, and `regret_table` says
    how far the decisions of a router are from what they found. Cost: one forward pass a trial, as many
    together as there are questions.
    """
    questions = len(batch.input_ids_BT)

    def loss(item_P: Ints, choice_PL: Ints) -> Floats:
        found = []
        # `exhaustive` asks one pattern after another for all questions: a batch of so many agrees.
        for start in range(0, len(item_P), questions):
            part = slice(start, start + questions)
            asked = take_questions(batch, torch.from_numpy(item_P[part]))
            right_P, _ = right_answers(routed, asked, counts_BL=torch.from_numpy(choice_PL[part]))
            found.append(1.0 - right_P.double().cpu().numpy())
        return np.concatenate(found)

    return Problem(
        loss=loss,
        num_items=questions,
        num_layers=routed.layers,
        cost_A=[float(calls) for calls in range(MOST_CALLS + 1)],
    )


def searched_oracle(labels: Labels) -> Oracle:
    """Return what the searches of `find_labels` found as an oracle, where there are too many paths to try.

    A question is answered from the calls of its label path on; below, and where nothing was found, it counts
    as wrong. A search may have missed a shorter path, so that a router can do better than this oracle.
    """
    questions, layers = labels.counts_QL.shape
    budget_K = np.arange(MOST_CALLS * layers + 1, dtype=np.float64)
    counts_QL = labels.counts_QL.cpu().numpy()
    is_right_KQ = (counts_QL.sum(axis=1) <= budget_K[:, None]) & labels.is_found_Q.cpu().numpy()
    choice_KQL = np.where(is_right_KQ[:, :, None], counts_QL, np.zeros((questions, layers), dtype=np.int64))
    return Oracle(budget_K=budget_K, loss_KQ=1.0 - is_right_KQ, choice_KQL=choice_KQL)
