"""Pages of other sites cannot spend, reload or read by the browser of whoever runs a gateway without keys."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.gateway.client import ask, call, check_advice
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.test_keys import HEADERS_OF, hashed, make
from tests.gateway.upstream import Upstream
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_keys import KeySettings

CROSS = [
    {"origin": "http://evil.example", "sec-fetch-site": "cross-site", "content-type": "text/plain"},
    {"origin": "http://evil.example:8100", "content-type": "text/plain"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:1"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


def test_pages_of_other_sites_are_refused(upstream: Upstream, tmp_path: Path) -> None:
    with running(
        make_config(upstream.base_url, tmp_path / "l.sqlite"), deployment=make_deployment()
    ) as ready:
        root = ready.base_url.removesuffix("/v1")
        for headers in CROSS:
            for path in (
                "/v1/chat/completions",
                "/v1/messages",
                "/v1/route",
                "/v1/feedback",
                "/admin/reload",
            ):
                refused = call(root, path, method="POST", body=b"{}", headers=headers)
                assert (refused.status, refused.error["code"]) == (403, "cross_site"), (headers, path)
                check_advice(refused.error["message"])
        # A link of another site leads to the page, and the page itself may ask.
        link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
        assert call(root, "/ui", headers=link).status in (200, 301, 302, 307, 308)
        own = {"origin": root, "sec-fetch-site": "same-origin"}
        assert ask(ready.base_url, headers=own, model="small").status == 200
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example:8100", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil.example.", 403),
        ("[::1]:8100", 200),
        ("127.0.0.1", 200),
        ("192.168.1.7:80", 200),
        ("localhost:1234", 200),
        ("gateway", 200),
        ("turnout.internal", 200),
        ("llm.example.org", 200),
        ("LLM.example.org:443", 200),
    ],
)
def test_a_name_that_leads_here_by_a_trick_reads_nothing(
    upstream: Upstream, tmp_path: Path, host: str, status: int
) -> None:
    config = make_config(upstream.base_url, tmp_path / "l.sqlite")
    server = msgspec.structs.replace(config.server, allowed_hosts=["llm.example.org"])
    config = msgspec.structs.replace(config, server=server)
    with running(config, deployment=make_deployment()) as ready:
        root = ready.base_url.removesuffix("/v1")
        answers = [
            call(root, path, headers={"host": host}) for path in ("/ui/data", "/v1/models", "/metrics")
        ]
        answers.append(ask(ready.base_url, headers={"host": host}, model="small"))
        health = call(root, "/healthz", headers={"host": host})
    assert {answer.status for answer in answers} == {status}
    assert health.status == 200
    if status == 403:
        assert answers[0].error["code"] == "strange_host"
        check_advice(answers[0].error["message"])


def test_an_allowed_site_may_ask(upstream: Upstream, tmp_path: Path) -> None:
    config = make_config(upstream.base_url, tmp_path / "l.sqlite")
    server = msgspec.structs.replace(config.server, allowed_hosts=["app.example.org"])
    config = msgspec.structs.replace(config, server=server)
    page = {"origin": "https://app.example.org", "sec-fetch-site": "cross-site"}
    with running(config, deployment=make_deployment()) as ready:
        assert ask(ready.base_url, headers=page, model="small").status == 200


def test_with_keys_a_page_needs_one(upstream: Upstream, tmp_path: Path) -> None:
    """Which it cannot know; who has one may use it from a page, and under any name."""
    with running(
        make(upstream, tmp_path, team=KeySettings(sha256=hashed())), deployment=make_deployment()
    ) as ready:
        page = {
            "origin": "https://app.example.org",
            "sec-fetch-site": "cross-site",
            "host": "llm.example.org",
        }
        assert ask(ready.base_url, headers=page, model="small").status == 401
        assert ask(ready.base_url, headers={**page, **HEADERS_OF}, model="small").status == 200
