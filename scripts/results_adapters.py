"""This module writes the parts of docs/results.md about pools of adapters."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.results_cells import Result, ends, spread, table


def adapters(data: Result) -> Iterator[str]:
    """S3: share of right answers over ten tasks."""
    result = data["result"]
    yield (
        "Share of right answers over ten tasks, one adapter each. *Held-in*: the task's adapter is in the "
        "pool. *Renamed*: so it is, but the question names its task by a word that no adapter has seen. "
        "*Held-out*: it is not."
    )
    yield ""
    rows = []
    for name, row in result["held_in"].items():
        cells = [
            ends(other["accuracy"], other["low"], other["high"]) if other else "-"
            for other in (row, result["renamed"].get(name), result["held_out"].get(name))
        ]
        lead = ends(row["gain_over_phatgoose"], row["gain_low"], row["gain_high"], form="+.3f")
        rows.append((f"`{name}`", *cells, lead))
    yield from table(("method", "held-in", "renamed", "held-out", "held-in minus PHATGOOSE"), rows)
    yield ""
    yield from (f"- {claim}" for claim in result["claims"])


def token_gates(data: Result) -> Iterator[str]:
    """What gates choose, and what a choice per token and module costs."""
    result = data["result"]
    gates, noisy = result["gates"], result["noisy_oracle"]
    told, trained = gates["told of rivals"], gates["as trained"]
    yield (
        "The adapters, gates and questions of the table above. *First choice*: the share of tokens and "
        "modules at which the gate of the question's own adapter scores highest, of ten (by chance 0.100); "
        "for the inputs of the gates' training, where the own adapter alone is active, and for those "
        "that routing "
        "itself makes. *Told of rivals*: gates of the same form, fitted to tell whose question a token "
        "belongs to; those of PHATGOOSE see their own task alone."
    )
    yield ""
    keys = ("first_choice_own_inputs", "first_choice_routed_inputs", "right")
    heads = ("gates", "first choice, inputs as in training", "first choice, routed", "right answers")
    yield from table(heads, [(kind, *(spread(line[key]) for key in keys)) for kind, line in gates.items()])
    yield ""
    yield "What is left of the oracle's answers where the own adapter is taken with a chance, else any other:"
    yield ""
    yield from table(
        ("chance, by token and module", *(format(line["chance"], "g") for line in noisy)),
        [("right answers", *(spread(line["right"]) for line in noisy))],
    )
    yield ""
    yield (
        "A gate that is taught on its own task alone finds its adapter at "
        f"{trained['first_choice_routed_inputs']['value']:.0%} of the places; each wrong one spoils what "
        f"later modules read (told of rivals, {told['first_choice_own_inputs']['value']:.0%} become "
        f"{told['first_choice_routed_inputs']['value']:.0%} under routing); and adapters of a model of width "
        f"{result['settings']['width']} answer little unless nearly all places agree. A vector of the whole "
        "query, as Glider adds it, makes them agree."
    )
