"""This module asks a recording, or a table of counts, everything that it can answer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from turnout.core.progress import Progress, silent
from turnout.nn.analysis.committee import committee_table
from turnout.nn.analysis.counts import Counts
from turnout.nn.analysis.load import load_of, load_table, sureness_table
from turnout.nn.analysis.locality import locality_table
from turnout.nn.analysis.recording import Recording
from turnout.nn.analysis.specialisation import (
    LEAST,
    counts_by_domain,
    specialisation_table,
    vocabulary_chance,
    vocabulary_specialisation,
)
from turnout.nn.analysis.table import Table


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found in one model: tables, and the numbers that the pictures show.

    `loads[layer]` is a load (E,); `domains[layer][domain]` too, empty where no domain is known.
    """

    name: str
    tables: tuple[Table, ...]
    loads: Mapping[str, Tensor]
    domains: Mapping[str, Mapping[str, Tensor]]

    def table(self, title: str) -> Table | None:
        """Return the table of this title; None where the data could not answer it."""
        return next((table for table in self.tables if table.title == title), None)

    def summary(self) -> str:
        """Return in two sentences how many experts there are and where they are used least evenly."""
        sizes = sorted({len(load_E) for load_E in self.loads.values()})
        experts = " or ".join(map(str, sizes))
        used = {layer: load_E.double() for layer, load_E in self.loads.items() if bool(load_E.sum() > 0)}
        most = {layer: float(load_E.max() / load_E.mean()) for layer, load_E in used.items()}
        plural = "" if len(self.loads) == 1 else "s"
        if not most:
            return f"{len(self.loads)} layer{plural} of {experts} experts; none of them got a token."
        worst = max(most, key=most.__getitem__)
        dead = sum(int((load_E == 0).sum()) for load_E in self.loads.values())
        unused = f"{dead} of them got no token" if dead else "each got a token"
        found = (
            f"{len(self.loads)} layer{plural} of {experts} expert{'' if experts == '1' else 's'}; {unused}."
        )
        return f"{found} Least even is {worst}: its busiest expert has {most[worst]:.1f} times the mean."

    def to_text(self) -> str:
        """Return all tables as text."""
        return "\n\n".join([self.name, self.summary(), *(table.to_text() for table in self.tables)])

    def to_dict(self) -> dict[str, object]:
        """Return all tables for JSON."""
        return {"name": self.name, "tables": [table.to_dict() for table in self.tables]}


def inspect_counts(counts: Counts) -> list[Inspection]:
    """Return what counts by domain can tell of each model: load and specialisation."""
    found = []
    for model, layers in counts.items():
        loads = {layer: torch.stack(list(parts.values())).sum(dim=0) for layer, parts in layers.items()}
        tables = [load_table(loads)]
        has_domains = all(len(parts) > 1 for parts in layers.values())
        if has_domains:
            tables.append(specialisation_table(layers))
        found.append(
            Inspection(name=model, tables=tuple(tables), loads=loads, domains=layers if has_domains else {})
        )
    return found


def inspect_recording(
    recording: Recording,
    *,
    name: str,
    rng: np.random.Generator,
    rho: float = 2.0,
    progress: Progress = silent,
) -> Inspection:
    """Return all that a recording can tell; what it lacks (probabilities, domains, tokens) is left out.

    Local routing consistency needs rows of one length: padding is taken out of each, on either side, and what
    is left is cut to the shortest. Rows that are all padding say nothing.
    """
    recording = _said(recording)
    layers = recording.layers
    loads = {layer: load_of(recording.tokens(i)) for i, layer in enumerate(layers)}
    tables, domains, steps = [load_table(loads)], {}, 5
    progress("load", 1, steps)
    if recording.probs:
        tables.append(sureness_table(layers, [recording.token_probs(i) for i in range(len(layers))]))
    progress("sureness", 2, steps)
    if len(set(recording.domains)) > 1:
        domains = {
            layer: counts_by_domain(recording.chosen[i], recording.domains, recording.mask_BS)
            for i, layer in enumerate(layers)
        }
        tables.append(specialisation_table(domains))
        if recording.probs:
            sizes = [float(recording.tokens(i).sum(dim=-1).double().mean()) for i in range(len(layers))]
            last = [_last(recording, i) for i in range(len(layers))]
            ks = [max(round(size), 1) for size in sizes]
            tables.append(committee_table(layers, last, recording.domains, ks))
    progress("specialisation", 3, steps)
    if recording.token_ids_BS is not None:
        tables.append(_vocabulary(recording, rng))
    progress("vocabulary", 4, steps)
    tables.append(locality_table(_whole(recording), rng=rng, rho=rho))
    progress("consistency", 5, steps)
    return Inspection(name=name, tables=tuple(tables), loads=loads, domains=domains)


def _said(recording: Recording) -> Recording:
    """Return the recording without rows that are all padding."""
    mask_BS, ids_BS = recording.mask_BS, recording.token_ids_BS
    if mask_BS is None or bool(mask_BS.any(dim=1).all()):
        return recording
    is_kept_B = mask_BS.any(dim=1)
    return replace(
        recording,
        chosen=tuple(chosen_BSE[is_kept_B] for chosen_BSE in recording.chosen),
        probs=tuple(probs_BSE[is_kept_B] for probs_BSE in recording.probs),
        token_ids_BS=None if ids_BS is None else ids_BS[is_kept_B],
        mask_BS=mask_BS[is_kept_B],
        domains=tuple(itertools.compress(recording.domains, is_kept_B.tolist())),
    )


def _last(recording: Recording, layer: int) -> Tensor:
    """Return the probabilities at the last real token of each row, (B, E)."""
    probs_BSE, mask_BS = recording.probs[layer], recording.mask_BS
    if mask_BS is None:
        return probs_BSE[:, -1]
    place_S = torch.arange(mask_BS.shape[1])
    return probs_BSE[torch.arange(len(mask_BS)), (mask_BS * place_S).argmax(dim=1)]


def _vocabulary(recording: Recording, rng: np.random.Generator) -> Table:
    """Return how far tokens alone decide; unknown where none occurs often enough to say."""
    assert recording.token_ids_BS is not None
    ids_BS, mask_BS = recording.token_ids_BS, recording.mask_BS
    ids_T = ids_BS.flatten() if mask_BS is None else ids_BS[mask_BS]
    is_known = bool((torch.unique(ids_T, return_counts=True)[1] >= LEAST).any())
    rows: list[tuple[str | float, ...]] = []
    for i, layer in enumerate(recording.layers):
        chosen_TE = recording.tokens(i)
        even = float(chosen_TE.double().mean(dim=0).max())
        share, chance = math.nan, math.nan
        if is_known:
            share = vocabulary_specialisation(chosen_TE, ids_T)
            chance = vocabulary_chance(chosen_TE, ids_T, rng=rng)
        rows.append((layer, share, chance, even))
    return Table(
        title="Specialisation by token",
        columns=("layer", "share", "chance", "share_of_commonest_expert"),
        rows=tuple(rows),
        note=(
            "share: how often the token alone tells its most frequent expert (1: the token decides), "
            f"of tokens that occur {LEAST} times; chance: the same where tokens are dealt out anew."
        ),
    )


def _whole(recording: Recording) -> dict[str, Tensor]:
    """Return each layer's choice without padding, as many positions as the shortest row has."""
    layers, mask_BS = dict(zip(recording.layers, recording.chosen, strict=True)), recording.mask_BS
    if mask_BS is None:
        return layers
    # Real tokens to the front, in their order, wherever padding was.
    place_BS = (~mask_BS).int().argsort(dim=1, stable=True)[:, : int(mask_BS.sum(dim=1).min())]
    return {
        name: chosen_BSE.take_along_dim(place_BS[..., None], dim=1) for name, chosen_BSE in layers.items()
    }
