"""This module takes each line away that spares users a pain of docs/pains.md, and sees its test turn red.

A test that never failed protects nothing. For each pain the protecting line is removed in a copy of the
checkout, and the test that the page names is run there, before and after: green, then red.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import record

GATEWAY = "src/turnout/gateway"
COPIED = ("src", "tests", "benchmarks", "scripts", "docs", "examples", "pyproject.toml", "README.md")
TIMEOUT_S = 120


@dataclass(frozen=True)
class Removal:
    """One pain, who told of it, and the line without which it is back."""

    pain: int
    issues: str
    """Threads of other projects in which users tell of it."""
    test: str
    file: str
    line: str
    """The text that protects; it stands in the file once."""
    instead: str


def of(pain: int, issues: str, test: str, file: str, line: str, instead: str = "pass") -> Removal:
    """Return a removal in the gateway, whose test is one of the gateway's."""
    return Removal(pain, issues, f"tests/gateway/{test}", f"{GATEWAY}/{file}", line, instead)


REMOVALS = (
    Removal(
        1, "litellm 24512 24518 24521",
        "tests/imports/test_light.py::test_the_front_door_loads_numpy_and_nothing_else",
        "src/turnout/__init__.py", "from __future__ import annotations\n",
        "from __future__ import annotations\nimport msgspec\n",
    ),
    of(2, "litellm 6404 12685 13805 15128 21908 27954 38193; semantic-router 1835 2222",
       "test_metrics.py::test_series_are_bounded_and_lose_no_count", "metrics.py",
       "if labels not in family and len(family) >= MAX_SERIES:", "if False:"),
    of(2, "the same", "test_keystore.py::test_strangers_do_not_fill_the_memory", "keystore.py",
       "while len(self._found) > _MAX_REMEMBERED:", "while False:"),
    of(3, "litellm 9491 13541 13546 20268 21046",
       "test_pains.py::test_a_decision_that_takes_long_delays_nobody_else", "decide.py",
       "await asyncio.to_thread(selector.choose, request,", "selector.choose(request,"),
    of(4, "production-stack 448",
       "test_attempt.py::test_load_sheds_at_once_while_the_gateway_is_full_and_serves_again_after_it",
       "gate.py", "and len(self._waiting) >= self.settings.max_queued:", "and False:"),
    of(5, "litellm 13264 13957 16021 36114 36168",
       "test_pains.py::test_golden_rows_of_streams_and_of_those_that_were_cut", "stream.py",
       "self.usage = chunk.usage"),
    of(5, "the same", "test_ledger.py::test_a_request_ends_once", "account.py",
       "if self._is_ended:\n            return", "pass"),
    of(5, "the same", "test_given.py::test_who_leaves_a_stream_is_charged_for_what_it_gave", "account.py",
       "tokens = estimate_tokens(scanner.said_chars())", "tokens = max(0, scanner.num_events - 2)"),
    of(6, "litellm 25321 25561 25836 29491 32759",
       "test_stream.py::test_every_cut_gives_the_same_bytes_and_the_same_usage", "stream.py",
       "whole, self._held = (data, b\"\") if end == len(data) else (data[:end], data[end:])",
       "whole, self._held = data, b\"\""),
    of(6, "the same", "test_translate_chat_stream.py::test_every_single_cut_gives_the_same_bytes",
       "translate/events.py", "begin = max(0, len(self._held) - 3)", "begin = len(self._held)"),
    of(7, "litellm 13774 36123 37140",
       "test_leaving.py::test_the_upstream_knows_within_a_tenth_of_a_second", "disconnect.py",
       "self._task.cancel()"),
    of(7, "the same", "test_pains.py::test_a_client_that_leaves_frees_its_place", "flow.py",
       "exchange.parts.gate.leave()"),
    of(7, "the same", "test_keys.py::test_a_client_that_leaves_frees_its_budget_but_for_the_prompt",
       "flow.py", "parts.admission.leave(exchange.hold, exchange.account)"),
    of(8, "litellm 25843 40404; Portkey 1797; bifrost 5395",
       "test_faults.py::test_a_cut_stream_ends_in_an_error_and_never_in_done", "settle.py",
       "fault = None if scanner.is_complete else _cut(account)", "fault = None"),
    of(8, "the same", "test_faults.py::test_a_stream_falls_back_before_its_first_byte_too",
       "attempt.py", "if not fault.may_fall_back:", "if True:"),
    of(9, "litellm 34374 34819; bifrost 5010",
       "test_keepalive.py::test_before_the_first_event", "keepalive.py",
       "self._ping = self._bell.loop.create_task(self._send())"),
    of(10, "litellm 3646 25504 40130",
       "test_attempt.py::test_a_breaker_opens_rests_probes_and_closes", "breaker.py",
       "if call == self._probe:\n            self._close()"),
    of(10, "the same", "test_attempt.py::test_a_rate_limit_rests_as_long_as_the_upstream_says", "breaker.py",
       "self.settings.cooldown_s if retry_after_s is None else retry_after_s", "self.settings.cooldown_s"),
    of(11, "litellm 15647 20409 27852 30772 40761",
       "test_reload.py::test_a_reload_under_load_loses_no_request_and_mixes_nothing", "reload.py",
       "while before.running.count and not self._is_closing:", "while False:"),
    of(12, "litellm 12789 13882 23714 26672 34732 40095",
       "test_keys.py::test_requests_that_come_together_never_overspend", "limits_sqlite.py",
       "budget_usd - before.spent_usd - before.held_usd", "budget_usd - before.spent_usd"),
    of(12, "the same", "test_limits.py::test_processes_that_reserve_at_once_wait_for_each_other",
       "limits_sqlite.py", "BEGIN IMMEDIATE", "BEGIN"),
    of(13, "litellm 40364; higress 3841 4688",
       "test_responses.py::test_a_conversation_stays_with_the_provider_that_keeps_it", "pins.py",
       "if pin is None:\n        return selection", "return selection"),
    of(13, "the same",
       "test_conversations.py::test_who_may_not_know_of_it_and_what_nobody_made_are_404s", "kept.py",
       "pin.tenant != tenant_of(scope)", "False"),
    of(14, "envoy-ai-gateway 805 827; gateway-api-inference-extension 2988",
       "test_bad_input.py::test_a_body_over_the_limit_is_a_413_that_names_the_setting", "body.py",
       "if size > limit_bytes:\n        raise body_too_large(settings.max_body_mb, size)"),
    of(18, "litellm 22073", "test_pains.py::test_events_leave_as_they_come", "relay.py",
       "not whole or cycle.put(", "not (whole and scanner.is_done) or cycle.put("),
    of(19, "bifrost 417 4005",
       "test_pains.py::test_who_was_asked_and_in_vain_stands_in_headers_and_row", "reply.py",
       "if account.attempts > 1:", "if False:"),
    of(20, "semantic-router 1456 2020",
       "signals/test_board.py::test_a_signal_that_hangs_is_left_alone_after_its_budget", "signals/board.py",
       "self.settings[name].budget_ms / 1000", "None"),
    of(20, "the same", "signals/test_board.py::test_a_signal_that_hangs_does_not_pile_up_work",
       "signals/board.py", "if self._num_waiting >= _MAX_WAITING:", "if False:"),
)  # fmt: skip


def applied(text: str, removal: Removal) -> tuple[str, int]:
    """Return a file's text without the line, and the line's number."""
    if text.count(removal.line) != 1:
        raise ValueError(f"{removal.file} has {text.count(removal.line)} places with {removal.line!r}")
    before, _, after = text.partition(removal.line)
    return before + removal.instead + after, before.count("\n") + 1


def run(folder: Path, *tests: str) -> set[str]:
    """Run tests in a copy of the checkout and return those that failed; raises where pytest could not run."""
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}"}
    options = ["-q", "-p", "no:cacheprovider", "-m", "not gpu", f"--timeout={TIMEOUT_S}", "-rfE"]
    stop = ["-x"] if len(tests) == 1 else []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *stop, *tests],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{tests}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    told = [line.split() for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return {words[1].partition("[")[0] for words in told}


def without(folder: Path, removal: Removal, failed: Collection[str]) -> Mapping[str, object]:
    """Run a test without its line; `failed` are those that fail with every line in its place."""
    path = folder / removal.file
    text = path.read_text(encoding="utf-8")
    changed, number = applied(text, removal)
    path.write_text(changed, encoding="utf-8")
    try:
        is_red = removal.test in run(folder, removal.test)
    finally:
        path.write_text(text, encoding="utf-8")
    return {
        "pain": removal.pain,
        "issues": removal.issues,
        "test": removal.test,
        "removed": f"{removal.file}:{number}",
        "line": removal.line,
        "instead": removal.instead,
        "green_with_it": removal.test not in failed,
        "red_without_it": is_red,
    }


def copy_to(folder: Path) -> None:
    """Copy what the tests need of the checkout."""
    folder.mkdir()
    left_out = shutil.ignore_patterns("__pycache__", "results")
    for part in COPIED:
        source = record.ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=left_out)
        else:
            shutil.copy(source, folder / part)


def main() -> None:
    """Try every removal and write what came of it."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "copy"
        copy_to(folder)
        failed = run(folder, *{removal.test: None for removal in REMOVALS})
        for removal in REMOVALS:
            told = without(folder, removal, failed)
            found.append(told)
            print(f"{removal.pain:>2} {'red' if told['red_without_it'] else 'GREEN':<5} {removal.test}")
    reds = [bool(told["red_without_it"] and told["green_with_it"]) for told in found]
    pains = sorted({removal.pain for removal in REMOVALS})
    result = {"removals": found, "red": sum(reds), "of": len(reds), "pains": pains}
    path = record.write("pains", result)
    print(f"{sum(reds)} of {len(reds)} are green with the line and red without it -> {path.name}")
    if not all(reds):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
