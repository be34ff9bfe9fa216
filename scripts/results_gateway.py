"""This module writes the part of docs/results.md about the gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Result = dict[str, Any]
STREAMS = "streams_of_50_events_clients_16"
_ROWS = (("clients_1", "1"), ("clients_64", "64"), (STREAMS, "16, streams of 50 events"))


class Target(NamedTuple):
    """A number that was asked of the gateway before it was written."""

    label: str
    key: str
    """The load in the JSON."""
    kind: str
    """`added`: p50 at most, in ms; `rate`: a second, at least; `times`: of LiteLLM's rate, at least."""
    asked: float


TARGETS = (
    Target("added p50 with 1 client, ms", "clients_1", "added", 0.8),
    Target("requests a second with 64 clients", "clients_64", "rate", 2_500),
    Target("times LiteLLM with 64 clients", "clients_64", "times", 40),
    Target("streams a second with 16 clients", STREAMS, "rate", 900),
    Target("times LiteLLM with streams", STREAMS, "times", 80),
)
START_S, RSS_MB, RSS_GROWTH = 1.0, 120.0, 0.02
FIRST_BYTE_MS, GAP_MS = 1.0, 2.0

CACHE_SHARES = ("given_its_own", "given_another", "strangers_given_an_answer")


def sections(read: Callable[[str], Result], is_there: Callable[[str], bool]) -> Iterator[str]:
    """Yield the lines of every result that is there."""
    for name, rows in (
        ("gateway", load),
        ("gateway_streams", streams),
        ("gateway_soak", soak),
        ("cache", cache),
    ):
        if is_there(f"{name}.json"):
            data = read(name)
            yield f"`{name}.json`, commit {data['commit']}:"
            yield ""
            yield from rows(data["result"])
            yield ""


def load(result: Result) -> Iterator[str]:
    """Throughput and added time, in turns with the upstream itself and with peers."""
    peers = [name for name, said in result["peers"].items() if said == "measured"]
    yield (
        "One worker on one core, upstream and clients on another, a ridge decision and the ledger on, "
        "prompts of 80 tokens; blocks of requests in turns. Alone, the upstream is as fast as these clients "
        "ask. LiteLLM's proxy runs on the same core, as many releases as the run was given."
    )
    if "relay" in result["clients_64"]:
        yield (
            "A bare relay (`benchmarks/bare_relay.py`) passes bytes on from the gateway's core and does "
            "nothing else: what clients and upstream leave room for."
        )
    yield ""
    yield from _rates(result, peers)
    if "lean_load" in result:
        yield (
            "By a client that costs a third of aiohttp's (`benchmarks/lean_load.py`) and counts each "
            "event, so that the core of upstream and clients has more for the upstream:"
        )
        yield ""
        yield from _rates(result["lean_load"], peers)
    yield from targets(result, peers)
    decision_us, request_us = result["decision_p50_us"], result["gateway_cpu_us_per_request"]
    if "start_to_first_answer_s" in result:
        memory = result["rss_after_first_answer_mb"]
        started_s = result["start_to_first_answer_s"]
        yield (
            f"Start to first answer: {started_s:.2f} s, then {memory:.0f} MB (asked: under {START_S:.0f} s, "
            f"{_verdict(started_s < START_S)}, and {RSS_MB:.0f} MB, {_verdict(memory < RSS_MB)})."
        )
    yield (
        f"A decision took {decision_us:.0f} us (median; what comes together is decided together, and each "
        f"request has the time of all), a request {request_us:.0f} us of the processor."
    )


def _rates(found_by_key: Result, peers: list[str]) -> Iterator[str]:
    is_shared = all("gateway_core_share" in found_by_key[key] for key, _ in _ROWS)
    ways = {"direct": "upstream alone, a second", "relay": "a bare relay", "gateway": "gateway"}
    ways = {way: head for way, head in ways.items() if all(way in found_by_key[key] for key, _ in _ROWS)}
    heads = "".join(f" {name} | times |" for name in peers)
    share = " gateway's share of its core |" if is_shared else ""
    yield f"| clients | {' | '.join(ways.values())} |{heads} added p50, ms |{share}"
    yield "|---|" + "---|" * len(ways) + "---|---|" * len(peers) + "---|" + "---|" * is_shared
    for key, label in _ROWS:
        found = found_by_key[key]
        rates = [f"{found[way]['per_second']:,.0f}" for way in ways]
        for name in peers:
            rates += [f"{found[name]['per_second']:,.1f}", f"{found[f'times {name}']:.0f}"]
        share = f" {found['gateway_core_share']:.2f} |" if is_shared else ""
        yield f"| {label} | {' | '.join(rates)} | {found['added_total_p50_ms']:.2f} |{share}"
    yield ""


def targets(result: Result, peers: list[str]) -> Iterator[str]:
    """What was asked of the gateway beside what it reached, and how far a bare relay gets."""
    loads = {"aiohttp's client": result}
    if "lean_load" in result:
        loads["the lean client"] = result["lean_load"]
    ways = [way for way in ("gateway", "relay") if way in result["clients_64"]]
    yield (
        "Asked of the gateway before it was written, and reached"
        + (" (LiteLLM: the faster release of this run)" if len(peers) > 1 else "")
        + ("; beside it the same number of the bare relay:" if "relay" in ways else ":")
    )
    yield ""
    heads = [head for load in loads for head in (f"by {load}", "bare relay")[: len(ways)]]
    yield f"| | asked | {' | '.join(heads)} |"
    yield "|---" * (2 + len(heads)) + "|"
    missed: dict[str, list[str]] = {}
    for target in TARGETS:
        if target.kind == "times" and not peers:
            continue
        cells = []
        for name, found_by_key in loads.items():
            for way in ways:
                reached = _reached(target, found_by_key[target.key], way, peers)
                form = f"{reached:.2f}" if target.kind == "added" else f"{reached:,.0f}"
                if way == "gateway":
                    is_held = reached <= target.asked if target.kind == "added" else reached >= target.asked
                    form += "" if is_held else ", missed"
                    if not is_held:
                        missed.setdefault(target.label, []).append(name)
                cells.append(form)
        most = "at most" if target.kind == "added" else "at least"
        yield f"| {target.label} | {most} {target.asked:,} | {' | '.join(cells)} |"
    yield ""
    said = [f"{label} (by {' and '.join(names)})" for label, names in missed.items()]
    yield f"Missed: {'; '.join(said)}." if said else "None is missed."
    yield ""


def _reached(target: Target, found: Result, way: str, peers: list[str]) -> float:
    if target.kind == "added":
        return float(found[way]["total_p50_ms"] - found["direct"]["total_p50_ms"])
    rate = float(found[way]["per_second"])
    return rate if target.kind == "rate" else rate / max(found[name]["per_second"] for name in peers)


def _verdict(is_held: bool) -> str:
    return "held" if is_held else "missed"


def streams(result: Result) -> Iterator[str]:
    """What the gateway adds to slow streams."""
    each = result["events_per_second_each"]
    yield f"{result['clients']} streams of {each:.0f} events a second; medians of rounds that take turns."
    yield ""
    yield "| | direct p50, ms | direct p99 | gateway p50 | gateway p99 | added p50 | added p99 |"
    yield "|---|---|---|---|---|---|---|"
    labels = {"first": "request to first event", "way": "upstream to client", "gap": "between two events"}
    for key, label in labels.items():
        cells = [
            f"{result[key][way][p]:.2f}"
            for way in ("direct", "gateway", "added")
            for p in ("p50_ms", "p99_ms")
        ]
        yield f"| {label} | {' | '.join(cells)} |"
    yield ""
    first_ms, gap_ms = result["first"]["added"]["p50_ms"], result["gap"]["added"]["p99_ms"]
    yield (
        f"Asked: under {FIRST_BYTE_MS:.0f} ms added to the first event (p50), "
        f"{_verdict(first_ms < FIRST_BYTE_MS)}, and under {GAP_MS:.0f} ms between two (p99), "
        f"{_verdict(gap_ms < GAP_MS)}."
    )
    if "many" in result:
        yield from _many(result["many"])


def _many(found: Result) -> Iterator[str]:
    first, way, alone = found["gateway"]["first"], found["gateway"]["way"], found["direct"]["way"]
    yield ""
    yield (
        f"{found['streams']:,} streams of {found['events_per_second_each']:.0f} events a second, through "
        f"{found['workers']} workers on the two cores that clients and upstream use too: "
        f"{found['gateway']['events']:,} events of {found['direct']['events']:,} arrived, the first after "
        f"{first['p50_ms']:.1f} ms (p99 {first['p99_ms']:.0f}), on their way for {way['p50_ms']:.1f} ms "
        f"(p99 {way['p99_ms']:.0f}; without a gateway {alone['p99_ms']:.0f})."
    )


def soak(result: Result) -> Iterator[str]:
    """Start, memory and ledger under a long mixed load."""
    ledger = result["ledger"]
    rows = ledger.get("of_this_run", ledger["requests"])
    yield (
        f"{result['minutes']:.0f} minutes of mixed load with "
        f"faults and clients that leave: {result['sent']:,} requests, {rows:,} rows in the "
        f"ledger, {ledger['twice']} twice, {ledger['open']} without an end. Memory "
        f"{result['rss_minute_2_mb']:.1f} MB in minute 2, {result['rss_last_minute_mb']:.1f} MB in the last "
        f"({result['rss_growth']:+.1%}; asked: under {RSS_GROWTH:.0%}, "
        f"{_verdict(result['rss_growth'] < RSS_GROWTH)})."
    )


def cache(result: dict[str, Any]) -> Iterator[str]:
    """What a semantic cache gives again."""
    first = next(iter(result.values()))
    yield (
        f"A cache that holds the answers to {first['questions']} different questions of RouterArena is asked "
        f"{first['paraphrases']} paraphrases of them, and each question while its own answer is not kept. "
        "Numbers must be the same."
    )
    yield ""
    yield "| encoder | similarity | paraphrases given their own | given another's | strangers given one |"
    yield "|---|---|---|---|---|"
    for name, found in result.items():
        called = f"{name} ({found['model']})" if "model" in found else name
        for similarity, shares in found.items():
            if isinstance(shares, dict):
                cells = " | ".join(f"{shares[key]:.1%}" for key in CACHE_SHARES)
                yield f"| {called} | {similarity} | {cells} |"
    yield ""
    yield (
        "Prompts of one benchmark share their instructions, so strangers are near to each other: no "
        "similarity gives many paraphrases their answer and few strangers a wrong one. The default is the "
        "same text."
    )
