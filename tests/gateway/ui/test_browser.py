"""The page in a real browser: numbers, keyboard, phone, login, and text that stays text."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.client import call
from tests.gateway.settings import make_config
from tests.gateway.ui.filled import deployment, fill
from turnout.gateway.lifecycle import running
from turnout.gateway.schema import DecisionRow, insert_statement
from turnout.gateway.settings_keys import KeySettings

sync_api = pytest.importorskip("playwright.sync_api")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium; scripts/system installs it")

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # Containers have no user namespaces for the sandbox; the only pages are our own.
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def page_of(browser: Any, base_url: str, **options: Any) -> Iterator[Any]:
    """Open the page, and require that it asked nobody else and complained about nothing."""
    context = browser.new_context(**{"viewport": WIDE, **options})
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{base_url}/ui")
    show(page, "24 h", "24h")
    yield page
    context.close()
    assert [url for url in asked if not url.startswith(base_url)] == []
    assert said == []


def show(page: Any, label: str, name: str) -> None:
    page.get_by_label(label, exact=True).check()
    page.wait_for_selector(f"body[data-ready='{name}']")


@contextmanager
def gateway(ledger: Path, **changes: Any) -> Iterator[str]:
    config = msgspec.structs.replace(make_config("http://127.0.0.1:1/v1", ledger), **changes)
    with running(config, deployment=deployment()) as ready:
        yield ready.base_url.removesuffix("/v1")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    ledger = tmp_path_factory.mktemp("browser") / "ledger.sqlite"
    fill(ledger, 400, until_s=time.time())
    with gateway(ledger) as base_url:
        yield base_url, ledger


def at(data: Any, key: str) -> Any:
    """Return the number that an element says it shows."""
    first, _, rest = key.partition(".")
    if first == "models":
        name, _, field = rest.rpartition(".")
        rows = data["speeds"]["models"] if field == "p50" else data["models"]
        row = next(row for row in rows if row["name"] == name)
        return row["latency_s"]["p50"] if field == "p50" else row[field]
    if first in ("rule", "error", "dial") and rest not in ("quality", "usd_per_1k"):
        return next(row["requests"] for row in data[f"{first}s"] if row["name"] == rest)
    if first == "dial":
        return data["curve"]["dial"][rest]
    for part in key.split("."):
        data = data[part]
    return data


@pytest.mark.parametrize("count", [0, 10, 100_000])
def test_the_numbers_that_are_shown_are_those_of_the_ledger(browser: Any, tmp_path: Path, count: int) -> None:
    ledger = tmp_path / "ledger.sqlite"
    fill(ledger, count, until_s=time.time())
    with gateway(ledger) as base_url, page_of(browser, base_url) as page:
        page.get_by_label("Live").uncheck()
        data = page.evaluate("window.turnout()")
        shown = page.eval_on_selector_all(
            "[data-key]", "list => list.map((one) => [one.dataset.key, one.dataset.value, one.textContent])"
        )
        connection = sqlite3.connect(ledger)
        span = {name: data["span"][name] for name in ("since_s", "until_s")}
        query = "SELECT count(*), total(usd) FROM requests WHERE time_s >= :since_s AND time_s < :until_s"
        requests, usd = connection.execute(query, span).fetchone()
        connection.close()
        assert data["totals"]["requests"] == requests == count
        assert data["totals"]["usd"] + data["totals"]["replayed_usd"] == pytest.approx(usd)
        assert len(shown) > (8 if count == 0 else 30)
        for key, value, text in shown:
            assert json.loads(value) == at(data, key), key
            assert text == "\u2013" if value == "null" else any(sign.isdigit() for sign in text), key
        assert page.locator("#none").is_visible() == (count == 0)
        assert page.locator("#older").is_visible() == (count > 25)
        assert ("No request in this span" in page.locator("#traffic").inner_text()) == (count == 0)
        assert f"{count:,}" in page.locator("#tiles").inner_text()


def test_everything_can_be_reached_by_keyboard(browser: Any, filled: tuple[str, Path]) -> None:
    with page_of(browser, filled[0]) as page:
        page.reload()
        page.wait_for_selector("body[data-ready='1h']")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.get_by_label("24 h", exact=True).focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("body[data-ready='7d']")
        button = page.locator(".open").first
        button.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog[open]")
        assert page.locator("#reasons-body .facts").is_visible()
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog:not([open])", state="attached")
        assert button.evaluate("one => one === document.activeElement")


def test_an_opened_decision_shows_the_score_of_everybody(browser: Any, filled: tuple[str, Path]) -> None:
    connection = sqlite3.connect(filled[1])
    columns = "decision_id, chosen, price, scores"
    query = f"SELECT {columns} FROM requests WHERE scores IS NOT NULL ORDER BY time_s DESC"
    decision_id, chosen, price, scores = connection.execute(query).fetchone()
    connection.close()
    with page_of(browser, filled[0]) as page:
        page.locator(f"tr[data-id='{decision_id}'] .open").click()
        page.wait_for_selector("dialog[open]")
        assert chosen in page.locator(".scores .chosen th").inner_text()
        for name, (quality, usd) in json.loads(scores).items():
            value = page.locator(f"[data-key='score.{name}']").get_attribute("data-value")
            assert json.loads(value) == pytest.approx(quality - price * usd)


def test_older_decisions_follow_and_filters_hold(browser: Any, filled: tuple[str, Path]) -> None:
    with page_of(browser, filled[0]) as page:
        page.get_by_label("Live").uncheck()
        first = page.locator("#decisions tr").count()
        page.locator("#older").click()
        sync_api.expect(page.locator("#decisions tr")).not_to_have_count(first)
        ids = page.eval_on_selector_all("#decisions tr", "rows => rows.map((row) => row.dataset.id)")
        assert len(set(ids)) == len(ids)
        assert ids == sorted(ids, reverse=True)
        page.get_by_label("Failed").check()
        sync_api.expect(page.locator("#decisions .plain")).to_have_count(0)
        page.wait_for_selector("#decisions .chip.bad")
        ends = page.locator("#decisions .end").all_inner_texts()
        assert ends
        assert all(end[:1] in "45" for end in ends)


def test_the_page_fits_a_phone(browser: Any, filled: tuple[str, Path]) -> None:
    with page_of(browser, filled[0], viewport=PHONE, has_touch=True, is_mobile=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        small = page.eval_on_selector_all(
            "main *:not(:empty)",
            """list => list.filter((one) => {
                const box = one.getBoundingClientRect();
                const matrix = one.ownerSVGElement?.getScreenCTM();
                const size = parseFloat(getComputedStyle(one).fontSize) * (matrix ? matrix.a : 1);
                return box.width && one.childElementCount === 0 && size < 11;
            }).map((one) => one.textContent)""",
        )
        assert small == []
        page.locator(".open").first.click()
        page.wait_for_selector("dialog[open]")
        assert page.locator("dialog").bounding_box()["width"] <= PHONE["width"]


def test_what_clients_wrote_stays_text(browser: Any, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    fill(ledger, 1, until_s=time.time())
    evil = '<img src="x" onerror="window.stolen = 1"><script>window.stolen = 1</script>'
    row = DecisionRow(
        decision_id="f" * 28,
        session_id="s",
        time_s=time.time() - 1,
        requested_model=evil,
        chosen=evil,
        reason=evil,
        rule=evil,
        goal=evil,
        scores=json.dumps({evil: [0.5, 0.1]}),
        price=0.0,
        is_stream=False,
        text=evil,
    )
    connection = sqlite3.connect(ledger)
    connection.execute(insert_statement(DecisionRow, "decisions"), msgspec.structs.astuple(row))
    connection.commit()
    connection.close()
    with gateway(ledger) as base_url, page_of(browser, base_url) as page:
        page.locator(f"tr[data-id='{row.decision_id}'] .open").click()
        page.wait_for_selector("dialog[open]")
        assert page.locator("blockquote").inner_text() == evil
        assert page.evaluate("window.stolen") is None
        assert page.locator("img").count() == 0


def test_a_new_decision_appears_by_itself(browser: Any, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    fill(ledger, 5, until_s=time.time() - 60)
    with gateway(ledger) as base_url, page_of(browser, base_url) as page:
        page.locator(".open").first.focus()
        body = {"model": "nobody", "messages": [{"role": "user"}]}
        page.request.post(f"{base_url}/v1/chat/completions", data=body)
        sync_api.expect(page.locator("#decisions tr")).to_have_count(6)
        assert page.evaluate("document.activeElement.className") == "open"
        assert "404" in page.locator("#decisions tr").first.inner_text()


def test_where_keys_are_asked_for_the_page_asks_for_an_admins(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {}
    for name in ("root", "user"):
        monkeypatch.setenv(f"PAGE_{name.upper()}", f"secret-of-{name}-that-is-long-enough")
        keys[name] = KeySettings(secret=f"env:PAGE_{name.upper()}", is_admin=name == "root")
    auth = make_config("http://x", tmp_path / "l").auth
    auth = msgspec.structs.replace(auth, path=str(tmp_path / "keys.sqlite"))
    with gateway(tmp_path / "ledger.sqlite", keys=keys, auth=auth) as base_url:
        for name, status in (("root", 200), ("user", 403), ("nobody", 401)):
            secret = f"secret-of-{name}-that-is-long-enough"
            answer = call(base_url, "/ui/data", headers={"authorization": f"Bearer {secret}"})
            assert answer.status == status
        # What the browser sends after it was refused and has asked its user for a password.
        login = {"username": "x", "password": "secret-of-root-that-is-long-enough"}
        context = browser.new_context(http_credentials=login)
        page = context.new_page()
        page.goto(f"{base_url}/ui")
        page.wait_for_selector("body[data-ready='1h']")
        context.close()
