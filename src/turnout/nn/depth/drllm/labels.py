"""This module searches paths for training questions and turns them into labels, one count per block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.core.progress import Progress, silent
from turnout.core.rng import make_rng
from turnout.nn.depth.contract import MOST_CALLS
from turnout.nn.depth.drllm.paths import Path, counts_of
from turnout.nn.depth.drllm.search import RIGHT, SearchRule, TreeSearch, search_all
from turnout.nn.depth.rewards import right_answers, take_questions
from turnout.nn.depth.routed import RoutedDepth
from turnout.nn.tiny import Batch


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What the searches found for Q questions."""

    counts_QL: Tensor
    """The label path as counts; every block once where no path was right."""
    is_found_Q: Tensor
    """Whether any path was right; only these teach."""
    is_improved_Q: Tensor
    """Wrong on the whole path, right on the label path."""
    measured: int
    """Paths that were measured, over all questions."""

    def teaching(self, *, improved_share: float = 0.0, seed: int = 0) -> Tensor:
        """Return the questions to train on, of which at least `improved_share` are improved ones.

        Right answers that were right before are left out, drawn by `seed`, until the share is reached. Where
        no question was improved, all that were found are returned. The paper goes on searching until 0.3
        are; give that where many questions were searched. Without a share all that were found teach, since
        a base that is rarely improved would keep next to none of them.
        """
        if not 0.0 <= improved_share < 1.0:
            raise InputError(sentence("teaching: improved_share", allowed="[0, 1)", got=improved_share))
        improved = torch.nonzero(self.is_improved_Q)[:, 0].numpy()
        kept = torch.nonzero(self.is_found_Q & ~self.is_improved_Q)[:, 0].numpy()
        if improved_share and len(improved):
            room = int(len(improved) * (1.0 - improved_share) / improved_share + 1e-9)
            kept = make_rng(seed, "teaching").permutation(kept)[:room]
        return torch.from_numpy(np.sort(np.concatenate([improved, kept])))


def find_labels(
    routed: RoutedDepth,
    batch: Batch,
    *,
    rule: SearchRule | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Labels:
    """Search a short right path for each question of `batch`; all questions are measured in one batch.

    The reward is 1 where greedy decoding along the path gives the answer, else 0. Raises `InputError` for a
    rule that calls a block more often than a label can say.

    Source: S12, Dr.LLM, arXiv 2510.12773, section 3.1.
    """
    if rule is not None and rule.most_calls > MOST_CALLS:
        raise InputError(
            sentence("find_labels: most_calls", allowed=f"1 to {MOST_CALLS}", got=rule.most_calls)
        )
    questions = len(batch.input_ids_BT)
    searches = [
        TreeSearch(layers=routed.layers, rule=rule, rng=make_rng(seed, "search", str(question)))
        for question in range(questions)
    ]
    measured = 0
    rounds = searches[0].rule.simulations

    def rewards(asked: Sequence[tuple[int, Path]]) -> list[float]:
        nonlocal measured
        measured += len(asked)
        counts_NL = torch.tensor([counts_of(path, routed.layers) for _, path in asked])
        right_N, _ = right_answers(routed, take_questions(batch, [q for q, _ in asked]), counts_BL=counts_NL)
        progress("searching", min(max(s.simulations for s in searches), rounds), rounds)
        found: list[float] = right_N.float().tolist()
        return found

    search_all(searches, rewards)
    counts_QL = torch.tensor([_label(search, routed.layers) for search in searches])
    return Labels(
        counts_QL=counts_QL,
        is_found_Q=torch.tensor([search.best is not None for search in searches]),
        is_improved_Q=torch.tensor(
            [search.best is not None and search.start <= RIGHT for search in searches]
        ),
        measured=measured,
    )


def _label(search: TreeSearch, layers: int) -> list[int]:
    return [1] * layers if search.best is None else counts_of(search.best, layers)
