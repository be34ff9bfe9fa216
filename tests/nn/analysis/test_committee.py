from __future__ import annotations

import math

import pytest
import torch

from turnout.core.errors import InputError, ShapeError
from turnout.nn.analysis.committee import committee_table, find_committee, gini

DOMAINS = [name for name in ("algebra", "law", "physics", "poetry", "virology") for _ in range(8)]


def routing(boost: torch.Tensor, *, num_experts: int = 16) -> torch.Tensor:
    """Routing vectors with these logits per domain (5, E) and a little noise."""
    logits = boost.repeat_interleave(8, dim=0) + 0.05 * torch.randn(40, num_experts)
    return logits.softmax(dim=-1)


def test_a_planted_committee_is_found_and_its_mass_measured() -> None:
    boost = torch.zeros(5, 16)
    boost[:, 3], boost[:, 7] = 4.0, 3.0
    for domain in range(5):
        boost[domain, 8 + domain] = 2.0
    probs_QE = routing(boost)
    found = find_committee(probs_QE, DOMAINS, k=4)
    # Rank 1 always and rank 2 always: 3 beats 7 in the mean at equal variance, so the front is 3 alone.
    assert found.experts == (3,)
    assert found.mass == pytest.approx(float(probs_QE[:, 3].mean()), rel=1e-6)
    assert found.jaccard > 0.3
    assert found.gini > 0.5


def test_the_front_keeps_the_steady_and_the_high() -> None:
    boost = torch.zeros(5, 16)
    boost[:, 2] = 3.0  # rank 2 or 3: not the best mean
    boost[:, 5] = torch.tensor([4.0, 4.0, 4.0, 4.0, 1.0])  # rank 1 but in one domain: better mean
    boost[:, 6] = torch.tensor([0.0, 0.0, 0.0, 0.0, 2.0])
    boost[4, 9] = 4.0
    found = find_committee(routing(boost), DOMAINS, k=4)
    assert 5 in found.experts
    assert 2 in found.experts


def test_domains_with_experts_of_their_own_have_no_committee() -> None:
    boost = torch.zeros(5, 16)
    for domain in range(5):
        boost[domain, 3 * domain : 3 * domain + 3] = 4.0
    found = find_committee(routing(boost), DOMAINS, k=3)
    assert found.experts == ()
    assert found.mass == 0.0
    assert found.jaccard == 0.0
    assert min(found.silhouette_G) > 0.9


def test_domains_that_do_not_route_alike_are_left_out() -> None:
    boost = torch.zeros(5, 16)
    for domain in range(4):
        boost[domain, domain] = 5.0
    probs_QE = routing(boost)
    probs_QE[32:] = torch.rand(8, 16).softmax(dim=-1)
    probs_QE[32:36] = probs_QE[:4]
    found = find_committee(probs_QE, DOMAINS, k=2, num_domains=4)
    assert found.kept == ("algebra", "law", "physics", "poetry")


def test_silhouettes_are_those_of_the_textbook() -> None:
    probs_QE = torch.rand(40, 6).softmax(dim=-1).double()

    def distance(i: int, j: int) -> float:
        return 1 - float(torch.nn.functional.cosine_similarity(probs_QE[i], probs_QE[j], dim=0))

    expected = dict.fromkeys(DOMAINS, 0.0)
    for i, own in enumerate(DOMAINS):
        means = {}
        for name in expected:
            others = [j for j in range(40) if DOMAINS[j] == name and j != i]
            means[name] = sum(distance(i, j) for j in others) / len(others)
        inside = means.pop(own)
        nearest = min(means.values())
        expected[own] += (nearest - inside) / max(nearest, inside) / 8
    found = find_committee(probs_QE, DOMAINS, k=2)
    assert found.silhouette_G == pytest.approx(list(expected.values()), abs=1e-9)


def test_gini_ends_and_order() -> None:
    assert gini(torch.ones(8)) == 0.0
    assert gini(torch.eye(8)[0]) == pytest.approx(7 / 8)
    assert gini(torch.tensor([1.0, 3.0])) == pytest.approx(0.25)


def test_names_of_experts_do_not_matter() -> None:
    probs_QE, order = routing(torch.randn(5, 16)), torch.randperm(16)
    plain = find_committee(probs_QE, DOMAINS, k=4)
    moved = find_committee(probs_QE[:, order], DOMAINS, k=4)
    assert sorted(int(order[e]) for e in moved.experts) == list(plain.experts)
    assert moved.mass == pytest.approx(plain.mass)
    assert committee_table(["0"], [probs_QE], DOMAINS, [4]).column("jaccard") == [plain.jaccard]


def test_what_is_refused() -> None:
    with pytest.raises(ShapeError, match="Q = 40"):
        find_committee(torch.rand(3, 4), DOMAINS, k=2)
    with pytest.raises(InputError, match="at most 4"):
        find_committee(torch.rand(40, 4), DOMAINS, k=5)
    with pytest.raises(InputError, match="two or more"):
        find_committee(torch.rand(4, 4), ["a"] * 4, k=2)
    for wrong in (torch.full((40, 4), float("nan")), torch.randn(40, 4)):
        with pytest.raises(InputError, match="find_committee: probs_QE; allowed: probabilities"):
            find_committee(wrong, DOMAINS, k=2)


def test_a_gate_that_prefers_nobody_has_no_committee() -> None:
    for even in (torch.full((40, 4), 0.25), torch.zeros(40, 4)):
        found = find_committee(even, DOMAINS, k=2)
        assert found.experts == ()
        assert math.isnan(found.jaccard)
    probs_QE = torch.tensor([0.4, 0.2, 0.2, 0.2]).expand(40, 4)
    found = find_committee(probs_QE, DOMAINS, k=2)
    assert (found.experts, found.jaccard) == ((0,), 1.0)


def test_an_expert_in_just_the_asked_share_of_domains_is_no_candidate() -> None:
    """The paper asks for more than 0.8 of the domains; 4 of 5 are not."""
    boost = torch.zeros(5, 16)
    boost[:4, 3] = boost[4, 9] = 4.0
    for domain in range(5):
        boost[domain, 10 + domain] = 2.0
    assert 3 not in find_committee(routing(boost), DOMAINS, k=2).experts
    assert find_committee(routing(boost), DOMAINS, k=2, presence=0.79).experts == (3,)
