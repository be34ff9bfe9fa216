"""The client that asks upstreams, against servers that write raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib

import pytest

from tests.gateway.raw_upstream import OK, Stand, replies, request_of, run
from turnout.gateway.providers import client as client_module
from turnout.gateway.providers.connection import MAX_HEAD_BYTES
from turnout.gateway.providers.response import HIGH_BYTES, BrokenError, DroppedError

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n1;ext=1\r\n \r\n5\r\nworld\r\n0\r\ntrailer: 1\r\n\r\n"
)


def test_a_request_says_where_it_goes_and_one_connection_serves_many() -> None:
    async def test() -> None:
        heads = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                head, body = await request_of(reader)
                heads.append(head)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

        async with Stand(handle) as stand:
            for number in range(3):
                sent = b'{"n": %d}' % number
                response = await stand.client.send("POST", stand.url, {"authorization": "Bearer k"}, sent)
                assert (response.status, await response.read()) == (200, sent)
            assert stand.num_connections == 1
            lines = heads[0].decode().split("\r\n")
            assert lines[0] == "POST /v1/chat?a=b HTTP/1.1"
            assert f"host: {stand.url.split('/')[2]}" in lines
            assert "authorization: Bearer k" in lines
            with pytest.raises(ValueError, match="line break"):
                await stand.client.send("POST", stand.url, {"a": "b\r\nc: d"}, b"")
            await stand.client.send("POST", stand.url, {"host": "other"}, b"")
            assert heads[-1].count(b"host: ") == 1

    run(test)


def test_chunks_are_read_wherever_they_are_cut() -> None:
    async def test() -> None:
        for cut in range(1, len(CHUNKED), 7):
            async with Stand(replies(CHUNKED[:cut], CHUNKED[cut:])) as stand:
                response = await stand.client.send("POST", stand.url, {}, b"")
                found = []
                while block := await response.read_some():
                    found.append(block)
                assert b"".join(found) == b"hello world"
                assert response.content_type == b"text/event-stream"
                assert await stand.ask() == b"hello world"
                assert stand.num_connections == 1

    run(test)


def test_interim_responses_are_passed_over_and_a_body_may_end_with_the_connection() -> None:
    async def test() -> None:
        parts = (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", OK)
        async with Stand(replies(*parts)) as stand:
            assert await stand.ask() == b"{}"
            assert await stand.ask() == b"{}"
            assert stand.num_connections == 1
        async with Stand(replies(b"HTTP/1.0 200 OK\r\n\r\n", b"to the ", b"end", is_closed=True)) as stand:
            assert await stand.ask() == b"to the end"
            assert await stand.ask() == b"to the end"
            assert stand.num_connections == 2
        async with Stand(replies(b"HTTP/1.1 204 No Content\r\n\r\n")) as stand:
            assert await stand.ask() == b""
            assert await stand.ask() == b""
            assert stand.num_connections == 1

    run(test)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_body_is_unpacked(coding: str) -> None:
    async def test() -> None:
        packed = gzip.compress(b"text" * 99) if coding == "gzip" else zlib.compress(b"text" * 99)
        head = f"HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: "
        whole = f"{head}{len(packed)}\r\n\r\n".encode() + packed
        async with Stand(replies(whole[:-9], whole[-9:])) as stand:
            assert await stand.ask() == b"text" * 99
        short = f"{head}{len(packed) - 5}\r\n\r\n".encode() + packed[:-5]
        async with Stand(replies(short)) as stand:
            with pytest.raises(BrokenError):
                await stand.ask()
        async with Stand(replies(head.replace(coding, "br").encode() + b"2\r\n\r\n{}")) as stand:
            with pytest.raises(BrokenError, match="br"):
                await stand.ask()

    run(test)


@pytest.mark.parametrize(
    "answer",
    [
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 20",
    ],
)
def test_what_is_no_whole_response_is_an_error_and_never_an_answer(answer: bytes) -> None:
    async def test() -> None:
        async with Stand(replies(answer, is_closed=True)) as stand:
            with pytest.raises(BrokenError):
                await stand.ask()
            assert stand.num_connections == 1  # what was begun is not asked for again

    run(test)


def test_a_kept_connection_that_was_closed_costs_one_more_try_and_no_more() -> None:
    async def test() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request_of(reader)
            writer.write(OK)
            await reader.readuntil(b"\r\n\r\n")  # takes the next request, and hangs up
            writer.transport.abort()

        async with Stand(handle) as stand:
            assert await stand.ask() == b"{}"
            assert await stand.ask() == b"{}"
            assert stand.num_connections == 2
        async with Stand(replies(is_closed=True)) as stand:
            with pytest.raises(DroppedError):
                await stand.ask()
            assert stand.num_connections == 1  # a new connection, so the upstream may have begun to work

    run(test)


def test_bytes_that_nobody_asked_for_are_nobodys_answer() -> None:
    async def test() -> None:
        forged = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"
        async with Stand(replies(OK, forged, wait_s=0.01)) as stand:
            assert await stand.ask() == b"{}"
            await asyncio.sleep(0.05)
            assert await stand.ask() == b"{}"
            assert stand.num_connections == 2
        async with Stand(replies(OK + forged)) as stand:
            assert await stand.ask() == b"{}"
            assert await stand.ask() == b"{}"
            assert stand.num_connections == 2

    run(test)


def test_a_response_that_is_given_up_ends_the_connection_at_once() -> None:
    async def test() -> None:
        ended = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request_of(reader)
            writer.write(CHUNKED[:120])
            with contextlib.suppress(ConnectionError):
                await reader.read(1)
            ended.set()

        async with Stand(handle) as stand:
            response = await stand.client.send("POST", stand.url, {}, b"")
            response.close()
            await asyncio.wait_for(ended.wait(), 0.1)
            ended.clear()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stand.ask(), 0.05)  # the body never comes to its end
            del response  # nobody reads it any more
            await stand.client.close()
            await asyncio.wait_for(ended.wait(), 0.1)

    run(test)


def test_a_stream_that_nobody_reads_is_not_read_ahead_without_bound() -> None:
    async def test() -> None:
        written = 0

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal written
            while True:
                await request_of(reader)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 30000000\r\n\r\n")
                for _ in range(300):
                    writer.write(b"x" * 100_000)
                    await writer.drain()
                    written += 100_000

        async with Stand(handle) as stand:
            response = await stand.client.send("POST", stand.url, {}, b"")
            await asyncio.sleep(0.1)
            held = written
            await asyncio.sleep(0.1)
            assert held == written < 20_000_000  # what the system's buffers hold
            assert response.size < HIGH_BYTES + 2**18 + 1
            assert len(await response.read()) == 30_000_000
            assert len(await stand.ask()) == 30_000_000
            assert stand.num_connections == 1

    run(test)


def test_a_large_body_goes_out_in_pieces_and_stops_where_it_is_refused() -> None:
    async def test() -> None:
        big = b"x" * 20_000_000

        async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            _, body = await request_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n%08d" % len(body))
            await reader.read()

        async with Stand(count) as stand:
            assert await stand.ask(big) == b"20000000"

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
            await asyncio.sleep(0.1)

        async with Stand(refuse) as stand:
            response = await stand.client.send("POST", stand.url, {}, big)
            assert response.status == 413
            assert not stand.client._all or not next(iter(stand.client._all)).is_open

    run(test)


def test_idle_connections_are_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "KEEP_ALIVE_S", 0.05)

    async def test() -> None:
        async with Stand(replies(OK)) as stand:
            await asyncio.gather(*(stand.ask() for _ in range(5)))
            assert len(stand.client._all) == 5
            await asyncio.sleep(0.3)
            assert not stand.client._all
            assert await stand.ask() == b"{}"

    run(test)
