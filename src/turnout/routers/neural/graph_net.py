"""This module holds the graph of GraphRouter: tasks, queries and LLMs, messages along edges, edge prediction.

An LLM is known through its edges alone: what it scored and cost on which queries of which tasks. Two rounds
of messages from the queries that it answered make its state. A query is its own text and its task, and gets
no message, so the edges to be predicted cannot reach it. A task is the mean of its queries and a learned
vector of its own.

Letters of this module: B rows of a batch, D width, S width of a query's state (D + 1), T tasks.

Source: T. Feng et al., "GraphRouter", arXiv 2410.03834: abstract, and the code at
github.com/ulab-uiuc/GraphRouter (f513909), model/graph_nn.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from turnout.core.outcomes import Floats, Ints
from turnout.routers.neighbours import Array
from turnout.routers.neural.descent import TorchDescent, generator, tensor
from turnout.routers.neural.graph_memory import GraphMemory

WIDTH = 32
_ROUNDS = 2
_TASK_DROPPED = 0.3
"""Share of rows whose task is hidden in training, so that queries without one are answered, too."""
_COST_WEIGHT = 0.1
_MAX_SENDERS = 1_000
"""So many queries send messages when held-out rows are judged; all of them do in the end."""
_CHUNK = 1 << 23
"""Numbers in one block of messages."""


@dataclass(frozen=True, slots=True)
class Edges:
    """B queries with their edges to M candidates."""

    x_BF: Tensor
    task_B: Tensor
    """Index of the task, -1 where it is unknown."""
    quality_BM: Tensor
    """NaN where there is no edge."""
    cost_BM: Tensor
    """Standardised, NaN where unknown."""

    def take(self, rows: Tensor) -> Edges:
        """Return the edges of some queries."""
        return Edges(self.x_BF[rows], self.task_B[rows], self.quality_BM[rows], self.cost_BM[rows])

    def seen(self, is_seen_BM: Tensor) -> Edges:
        """Return the graph with these edges alone."""
        quality_BM = self.quality_BM.masked_fill(~is_seen_BM, torch.nan)
        return Edges(self.x_BF, self.task_B, quality_BM, self.cost_BM.masked_fill(~is_seen_BM, torch.nan))


class GraphNet(nn.Module):
    """The weights; made from a generator, or to be loaded from `arrays_of`."""

    def __init__(self, task_TF: Array, rng: np.random.Generator) -> None:
        super().__init__()

        def normal(rows: int, columns: int, share: float = 1.0) -> nn.Parameter:
            return nn.Parameter(tensor(rng.normal(size=(rows, columns)) * share / np.sqrt(columns)))

        num_features = task_TF.shape[1]
        self.task_TF = nn.Buffer(tensor(task_TF))
        self.text = normal(num_features, WIDTH)
        self.topic = normal(num_features, WIDTH)
        self.own = normal(task_TF.shape[0], WIDTH, 0.1)
        self.start = normal(1, WIDTH)
        self.sender = nn.ParameterList([normal(WIDTH + 1, WIDTH) for _ in range(_ROUNDS)])
        self.edge = nn.ParameterList([normal(2, WIDTH) for _ in range(_ROUNDS)])
        self.receiver = nn.ParameterList([normal(WIDTH, WIDTH) for _ in range(_ROUNDS)])
        self.keep = nn.ParameterList([normal(WIDTH, WIDTH) for _ in range(_ROUNDS)])
        self.quality = normal(WIDTH, WIDTH + 1)
        self.cost = normal(WIDTH, WIDTH + 1, 0.1)

    def tasks(self) -> Tensor:
        """Return the states of the tasks, then zeros for an unknown one, shape (T + 1, D)."""
        return torch.cat([self.task_TF @ self.topic + self.own, torch.zeros(1, WIDTH)])

    def queries(self, edges: Edges) -> Tensor:
        """Return the states of the queries, shape (B, S)."""
        state_BD = edges.x_BF @ self.text + self.tasks()[edges.task_B]
        return torch.cat([state_BD, torch.ones(state_BD.shape[0], 1)], dim=1)

    def models(self, edges: Edges) -> Tensor:
        """Return the states of the candidates after the messages along their edges, shape (M, D)."""
        query_BS = self.queries(edges)
        is_edge_BM = torch.isfinite(edges.quality_BM)
        pair_BM2 = torch.stack([edges.quality_BM - 0.5, edges.cost_BM], dim=2).nan_to_num(0.0)
        num_M1 = is_edge_BM.sum(dim=0)[:, None].clamp(min=1)
        state_MD = self.start.expand(edges.quality_BM.shape[1], WIDTH)
        step = max(_CHUNK // (max(edges.quality_BM.shape[1], 1) * WIDTH), 1)
        for at in range(_ROUNDS):
            own_MD = state_MD @ self.receiver[at]
            total_MD = torch.zeros_like(own_MD)
            for low in range(0, query_BS.shape[0], step):
                rows = slice(low, low + step)
                from_BD = query_BS[rows] @ self.sender[at]
                along_BMD = pair_BM2[rows] @ self.edge[at]
                message_BMD = torch.relu(from_BD[:, None, :] + along_BMD + own_MD)
                total_MD = total_MD + (message_BMD * is_edge_BM[rows, :, None]).sum(dim=0)
            state_MD = state_MD @ self.keep[at] + total_MD / num_M1
            state_MD = torch.relu(state_MD) if at + 1 < _ROUNDS else state_MD
        return state_MD

    def predict(self, query_BS: Tensor, state_MD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logit of quality and the standardised cost of each edge, both (B, M)."""
        return query_BS @ (state_MD @ self.quality).T, query_BS @ (state_MD @ self.cost).T

    def loss(self, edges: Edges, state_MD: Tensor) -> Tensor:
        """Return the log loss of graded quality plus a share of the squared error of cost."""
        logit_BM, cost_BM = self.predict(self.queries(edges), state_MD)
        is_edge_BM = torch.isfinite(edges.quality_BM)
        truth_BM = edges.quality_BM.nan_to_num(0.5)
        bits_BM = binary_cross_entropy_with_logits(logit_BM, truth_BM, reduction="none") * is_edge_BM
        # Masked before it is squared: the slope of an unknown, times 0, would be unknown.
        has_cost_BM = torch.isfinite(edges.cost_BM) & is_edge_BM
        away_BM = ((cost_BM - edges.cost_BM.nan_to_num(0.0)) * has_cost_BM).square()
        num = is_edge_BM.sum().clamp(min=1)
        return (bits_BM.sum() + _COST_WEIGHT * away_BM.sum()) / num


def learn(edges: Edges, task_TF: Array, mask_share: float, rng: np.random.Generator) -> tuple[GraphNet, Ints]:
    """Train on masked edges: the visible ones make the states, the masked ones are predicted.

    Returns the network and the rows that were held out.
    """
    net, chance = GraphNet(task_TF, rng), generator(rng)
    num_rows = edges.x_BF.shape[0]

    def loss(rows: Tensor) -> Tensor:
        batch = edges.take(rows)
        is_dropped_B = torch.rand(rows.shape[0], generator=chance) < _TASK_DROPPED
        batch = Edges(batch.x_BF, batch.task_B.masked_fill(is_dropped_B, -1), batch.quality_BM, batch.cost_BM)
        is_masked_BM = torch.rand(batch.quality_BM.shape, generator=chance) < mask_share
        return net.loss(batch.seen(is_masked_BM), net.models(batch.seen(~is_masked_BM)))

    def error(rows: Tensor) -> Tensor:
        is_out = torch.zeros(num_rows, dtype=torch.bool)
        is_out[rows] = True
        return net.loss(edges.take(rows), net.models(edges.take(torch.nonzero(~is_out)[:_MAX_SENDERS, 0])))

    held_out = TorchDescent(batch_size=512).run(net, loss, error, num_rows, rng)
    return net, held_out


def memory_of(net: GraphNet, edges: Edges, memory: GraphMemory) -> GraphMemory:
    """Return the memory with the states that these edges make; costs stay."""
    with torch.no_grad():
        state_MD = net.models(edges)
        return GraphMemory(
            memory.unit,
            net.text.numpy().copy(),
            net.tasks().numpy(),
            (state_MD @ net.quality).numpy(),
            (state_MD @ net.cost).numpy(),
            memory.cost_mean,
            memory.cost_deviation,
        )


def net_from(arrays: Mapping[str, np.ndarray]) -> GraphNet:
    """Rebuild the network from `arrays_of`."""
    net = GraphNet(arrays["task_TF"], np.random.default_rng(0))
    net.load_state_dict({name: tensor(array) for name, array in arrays.items()})
    return net


def edges_of(x_NF: Array, task_N: Ints, quality_NM: Floats, cost_NM: Floats) -> Edges:
    """Return the graph of these rows."""
    return Edges(tensor(x_NF), torch.from_numpy(task_N), tensor(quality_NM), tensor(cost_NM))
