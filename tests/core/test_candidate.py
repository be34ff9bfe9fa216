"""A candidate is a model with what may differ, and its name tells it from every other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from tests.core.tables import candidates
from turnout.core.candidate import Candidate, PriceCard, candidate_from_dict, check_unique
from turnout.core.errors import InputError

CARD = PriceCard(input_usd_per_mtok=3.0, output_usd_per_mtok=15.0, cached_usd_per_mtok=0.3)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "owl"),
        ({"effort": "low"}, "owl[effort=low]"),
        ({"max_output_tokens": 512}, "owl[max_output_tokens=512]"),
        (
            {"effort": "high", "adapter": "law", "max_output_tokens": 9},
            "owl[effort=high,max_output_tokens=9,adapter=law]",
        ),
        ({"price_card": CARD, "context_tokens": 8192, "descriptors": {"a": 1}}, "owl"),
    ],
)
def test_the_name_holds_what_differs_from_the_models_default(settings: dict[str, Any], name: str) -> None:
    candidate = Candidate(model="owl", **settings)
    assert candidate.name == name
    assert hash(candidate) == hash(Candidate(model="owl", **settings))


def test_a_charge_counts_cached_tokens_as_part_of_the_input() -> None:
    usd = CARD.usd(input_tokens=1_000_000, output_tokens=200_000, cached_tokens=400_000)
    assert usd == pytest.approx(0.6 * 3.0 + 0.4 * 0.3 + 0.2 * 15.0)
    plain = PriceCard(input_usd_per_mtok=3.0, output_usd_per_mtok=15.0)
    assert plain.usd(input_tokens=1_000_000, output_tokens=0, cached_tokens=400_000) == pytest.approx(3.0)


@pytest.mark.parametrize("field", ["input_usd_per_mtok", "output_usd_per_mtok", "cached_usd_per_mtok"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "3"])
def test_a_tariff_is_a_finite_number_of_at_least_zero(field: str, value: Any) -> None:
    tariff = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0, field: value}
    with pytest.raises(InputError, match=rf"PriceCard.{field}; allowed: a number in \[0, inf\); got: "):
        PriceCard(**tariff)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": " "}, "Candidate.model; allowed: .*; got: ' '"),
        ({"model": None}, "Candidate.model"),
        ({"model": "owl", "max_output_tokens": 0}, "Candidate.max_output_tokens of 'owl'; .*; got: 0"),
        ({"model": "owl", "context_tokens": 8192.0}, "Candidate.context_tokens of 'owl'; .*; got: 8192.0"),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Candidate(**settings)


def test_a_candidate_keeps_its_own_copy_of_what_it_was_given() -> None:
    descriptors, capabilities = {"params_b": 7}, {"tools"}
    candidate = Candidate(model="owl", descriptors=descriptors, capabilities=capabilities)  # type: ignore[arg-type]
    descriptors["params_b"] = 8
    capabilities.add("vision")
    assert candidate.descriptors == {"params_b": 7}
    assert candidate.capabilities == frozenset({"tools"})


def test_another_tariff_gives_the_same_candidate_under_it() -> None:
    candidate = Candidate(model="owl", effort="low").with_price_card(CARD)
    assert (candidate.name, candidate.price_card) == ("owl[effort=low]", CARD)
    assert candidate.with_price_card(None).price_card is None


@given(candidates())
def test_a_description_is_json_and_reads_back(pool: list[Candidate]) -> None:
    for candidate in pool:
        assert candidate_from_dict(json.loads(json.dumps(candidate.to_dict()))) == candidate


@pytest.mark.parametrize("name", ["owl\nelk", "owl\n", "\r owl", "owl\u2028elk"])
def test_a_name_stands_on_one_line(name: str) -> None:
    with pytest.raises(InputError, match=r"Candidate.model; allowed: a name on one line; got: .*; rename it"):
        Candidate(model=name)


def test_a_pool_holds_every_name_once() -> None:
    check_unique("pool", (Candidate(model="owl"), Candidate(model="owl", effort="low")))
    with pytest.raises(
        InputError, match=r"pool; allowed: at least one candidate, every name once; got: \['owl'\]"
    ):
        check_unique("pool", (Candidate(model="owl"), Candidate(model="owl")))
    with pytest.raises(InputError, match="got: 'no candidate'"):
        check_unique("pool", ())


def test_what_is_not_known_is_not_shown() -> None:
    assert repr(Candidate(model="small")) == "Candidate(model='small')"
    full = Candidate(model="m", effort="low", capabilities=frozenset({"json"}), descriptors={"params_b": 7})
    assert eval(repr(full)) == full  # noqa: S307
