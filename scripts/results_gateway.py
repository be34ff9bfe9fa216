"""This module writes the part of docs/results.md about the gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Result = dict[str, Any]
STREAMS = "streams_of_50_events_clients_16"
_ROWS = (("clients_1", "1"), ("clients_64", "64"), (STREAMS, "16, streams of 50 events"))

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
    decision_us, request_us = result["decision_p50_us"], result["gateway_cpu_us_per_request"]
    if "start_to_first_answer_s" in result:
        memory = result["rss_after_first_answer_mb"]
        yield f"Start to first answer: {result['start_to_first_answer_s']:.2f} s, then {memory:.0f} MB."
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
        f"({result['rss_growth']:+.1%})."
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
