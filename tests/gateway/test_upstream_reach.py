"""How the client of upstreams finds a way to a host: addresses, certificates, refusals."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.gateway.raw_upstream import OK, Stand, replies, run
from turnout.gateway.providers.client import Client, ConnectTimeoutError, UnreachableError, place_of
from turnout.gateway.providers.reach import open_socket


def test_who_cannot_be_reached_is_told_apart() -> None:
    async def test() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            client = Client(connect_s=0.2)
            with pytest.raises(UnreachableError, match="refused"):
                await client.send("POST", f"http://127.0.0.1:{taken.getsockname()[1]}/", {}, b"")
            taken.listen(0)
            rest = [socket.socket() for _ in range(3)]
            for one in rest:
                one.setblocking(False)
                one.connect_ex(taken.getsockname())
            await asyncio.sleep(0.05)
            with pytest.raises(ConnectTimeoutError):
                await client.send("POST", f"http://127.0.0.1:{taken.getsockname()[1]}/", {}, b"")
            for one in rest:
                one.close()
            await client.close()

    run(test)


def test_the_next_address_is_tried_where_one_is_silent_or_refuses() -> None:
    async def test() -> None:
        with socket.socket() as good, socket.socket() as dead, socket.socket() as full:
            for one in (good, dead, full):
                one.bind(("127.0.0.1", 0))
            good.listen(5)
            full.listen(0)
            rest = [socket.socket() for _ in range(3)]
            for one in rest:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            await asyncio.sleep(0.05)
            order = [(socket.AF_INET, one.getsockname()) for one in (full, dead, good)]
            began_s = asyncio.get_running_loop().time()
            sock = await open_socket(order)
            assert sock.getpeername() == good.getsockname()
            assert 0.2 < asyncio.get_running_loop().time() - began_s < 2
            sock.close()
            with pytest.raises(ConnectionRefusedError):
                await open_socket([order[1], order[1]])
            for one in rest:
                one.close()

    run(test)


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext".split()
    names = ["subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)

    async def test() -> None:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        async with Stand(replies(OK), server) as stand:
            with pytest.raises(UnreachableError, match="certificate"):
                await stand.ask()
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            stand.client._tls = None
            assert await stand.ask() == b"{}"
            assert await stand.ask(b"x" * 3_000_000) == b"{}"

    run(test)


def test_a_url_is_cut_as_it_is_written() -> None:
    place = place_of("https://[::1]/a%2Fb/:c?d=e")
    assert (place.host, place.port, place.is_tls) == ("::1", 443, True)
    assert (place.target, place.headers["host"]) == ("/a%2Fb/:c?d=e", "[::1]")
    assert place_of("http://Host:8080").headers["host"] == "host:8080"
    assert place_of("http://b\u00fccher.example:80/").host == "xn--bcher-kva.example"
    for wrong in ("ftp://a/", "http:///x", "http://a/\r\nx: y"):
        with pytest.raises(ValueError, match="no URL"):
            place_of(wrong)
