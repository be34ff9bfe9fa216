"""This module finds the best map from categories to experts under a budget, exactly.

With weight w_d of category d, score v_de of expert e on it and cost c_de, a map e(d) maximises
`sum_d w_d v_d,e(d)`, the objective of Composition of Experts (S126, arXiv 2412.01868), subject to

- money: `sum_d w_d c_d,e(d) <= budget`, a multiple-choice knapsack. States (cost, score) grow category by
  category; a state goes when another is no dearer and no worse, or when its Lagrangian bound is below a map
  in hand (H. Everett, Operations Research 11(3), 1963, for the bound);
- memory: `sum of the sizes of the distinct experts <= budget`. Sets are grown and cut by the bound of
  submodular gains: a set's score is at most its subset's plus the fractional knapsack of single gains.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Floats, Ints

_SLACK = 1e-12
_ROUNDS = 60


def map_within_usd(value_DM: Floats, usd_DM: Floats, budget_usd: float) -> Ints:
    """Return the expert of each category, shape (D,); both arrays hold the categories' weights already.

    An expert of unknown score or cost (NaN) is not chosen. Raises `InputError` where no map fits.
    """
    usable_DM = np.isfinite(value_DM) & np.isfinite(usd_DM)
    if not usable_DM.any(axis=1).all():
        raise InputError(
            sentence("a money budget over experts whose costs are unknown", do="record costs or price cards")
        )
    value_DM, usd_DM = np.where(usable_DM, value_DM, -np.inf), np.where(usable_DM, usd_DM, np.inf)
    least_D = usd_DM.min(axis=1)
    limit = budget_usd * (1.0 + 1e-9) + _SLACK
    if least_D.sum() > limit:
        allowed = f"at least {least_D.sum():g} usd per query, the cheapest map"
        raise InputError(sentence("the budget of a composition", allowed=allowed, got=budget_usd))
    price, map_D = _priced_map(value_DM, usd_DM, limit)
    rows = np.arange(len(map_D))
    known = float(value_DM[rows, map_D].sum())
    # What the categories still to come can add at this price, and must cost at least.
    finite_DM = np.where(usable_DM, usd_DM, 0.0)
    worth_D = np.where(usable_DM, value_DM - price * finite_DM, -np.inf).max(axis=1)
    rest_worth = np.append(np.cumsum(worth_D[::-1])[::-1], 0.0)
    rest_usd = np.append(np.cumsum(least_D[::-1])[::-1], 0.0)
    usd, value = np.zeros(1), np.zeros(1)
    history: list[tuple[Ints, Ints]] = []
    for row in rows:
        options = np.flatnonzero(usable_DM[row])
        options = options[_is_undominated(usd_DM[row, options], value_DM[row, options])]
        next_usd = (usd[:, None] + usd_DM[row, options]).ravel()
        next_value = (value[:, None] + value_DM[row, options]).ravel()
        bound = next_value + price * (limit - next_usd) + rest_worth[row + 1]
        keep = np.flatnonzero((next_usd + rest_usd[row + 1] <= limit) & (bound >= known - 1e-9))
        keep = keep[_is_undominated(next_usd[keep], next_value[keep])]
        if keep.size == 0:  # Rounding cut the last state: the map in hand is the optimum.
            return map_D
        history.append((keep // options.size, options[keep % options.size]))
        usd, value = next_usd[keep], next_value[keep]
    best = int(value.argmax())
    if value[best] <= known:
        return map_D
    return _read_back(history, best)


def _read_back(history: list[tuple[Ints, Ints]], state: int) -> Ints:
    chosen = []
    for origin, expert in reversed(history):
        chosen.append(int(expert[state]))
        state = int(origin[state])
    return np.array(chosen[::-1], np.int64)


def _priced_map(value_DM: Floats, usd_DM: Floats, limit: float) -> tuple[float, Ints]:
    """Return the least price (by halving) at which the best map by value minus price fits, and that map."""
    rows = np.arange(len(value_DM))
    finite_DM = np.where(np.isfinite(usd_DM), usd_DM, 0.0)

    def at(price: float) -> Ints:
        # Among equals the cheapest, so that a high price ends at the cheapest map.
        score_DM = np.where(np.isfinite(usd_DM), value_DM - price * finite_DM, -np.inf)
        best_D1 = score_DM.max(axis=1, keepdims=True)
        chosen_D: Ints = np.where(score_DM >= best_D1 - 1e-15, usd_DM, np.inf).argmin(axis=1)
        return chosen_D

    map_D = at(0.0)
    if usd_DM[rows, map_D].sum() <= limit:
        return 0.0, map_D
    low, high = 0.0, 1.0
    while usd_DM[rows, at(high)].sum() > limit and high < 1e18:
        low, high = high, high * 4.0
    for _ in range(_ROUNDS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if usd_DM[rows, at(middle)].sum() <= limit else (middle, high)
    map_D = at(high)
    return high, map_D if usd_DM[rows, map_D].sum() <= limit else usd_DM.argmin(axis=1)


def _is_undominated(usd: Floats, value: Floats) -> Ints:
    """Return the places of the options that no other beats in one and equals in the other, by cost."""
    order = np.lexsort((-value, usd))
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(value[order])[:-1]])
    return order[value[order] > best_before]


def map_within_size(value_DM: Floats, size_M: Floats, budget: float) -> Ints:
    """Return the expert of each category, shape (D,), where the distinct ones together fit the budget.

    Raises `InputError` where no expert of known score fits.
    """
    value_DM = np.where(np.isfinite(value_DM), value_DM, -np.inf)
    fits = np.flatnonzero((size_M <= budget + _SLACK) & np.isfinite(value_DM).all(axis=0))
    if fits.size == 0:
        allowed = f"at least {float(size_M.min()):g} billion parameters, the smallest expert"
        raise InputError(sentence("the budget of a composition", allowed=allowed, got=budget))
    fits = fits[_undominated_columns(value_DM[:, fits], size_M[fits])]
    *_, (_, best_set) = _better_sets(value_DM[:, fits], size_M[fits], budget + _SLACK)
    members = fits[np.array(best_set, np.int64)]
    map_D: Ints = members[value_DM[:, members].argmax(axis=1)]
    return map_D


def _undominated_columns(value_DE: Floats, size_E: Floats) -> Ints:
    kept: list[int] = []
    for column in np.lexsort((-value_DE.sum(axis=0), size_E)):
        covers_DK = value_DE[:, kept] >= value_DE[:, [column]]
        if not covers_DK.all(axis=0).any():
            kept.append(int(column))
    return np.array(kept, np.int64)


def _better_sets(value_DE: Floats, size_E: Floats, budget: float) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Yield (score, set) of ever better sets that fit."""
    floor_D = value_DE.min(axis=1)
    best = -np.inf
    # A task is a set, what it covers, what is left of the budget, who may still join, and its bound.
    start: tuple[int, ...] = ()
    stack = [(start, floor_D, budget, np.arange(size_E.size), np.inf)]
    while stack:
        chosen, cover_D, left, open_E, bound = stack.pop()
        if bound <= best + 1e-12:
            continue
        score = float(cover_D.sum()) if chosen else -np.inf
        if score > best:
            best = score
            yield score, chosen
        open_E = open_E[size_E[open_E] <= left]
        gain_E = np.maximum(value_DE[:, open_E] - cover_D[:, None], 0.0).sum(axis=0)
        density_E = gain_E / np.maximum(size_E[open_E], 1e-300)
        order = np.argsort(-density_E, kind="stable")
        open_E, gain_E = open_E[order], gain_E[order]
        for place in reversed(range(open_E.size)):
            # Whoever stands before `place` is out: the branches share no set.
            bound = float(cover_D.sum()) + _fractional(gain_E[place:], size_E[open_E[place:]], left)
            if bound > best + 1e-12:
                expert = int(open_E[place])
                stack.append(
                    (
                        (*chosen, expert),
                        np.maximum(cover_D, value_DE[:, expert]),
                        left - size_E[expert],
                        open_E[place + 1 :],
                        bound,
                    )
                )


def _fractional(gain_E: Floats, size_E: Floats, left: float) -> float:
    """Return the fractional knapsack of gains in the order of their density."""
    before_E = np.cumsum(size_E) - size_E
    share_E = np.clip((left - before_E) / np.maximum(size_E, 1e-300), 0.0, 1.0)
    return float((gain_E * np.where(before_E <= left, share_E, 0.0)).sum())
