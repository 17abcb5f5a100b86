"""The live feed: rendered once for all listeners, immediately after a change, never delayed by slow listeners."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer

from support.room_views import OPEN
from waitroom.control.dashboard import feed as live
from waitroom.control.dashboard.feed import FEED, Feed, add_feed
from waitroom.control.dashboard.presenter import room_texts

DASHBOARDS = 20


class Source:
    """Rooms, with counts of the reads and of the access checks."""

    def __init__(self) -> None:
        self.asked = 0
        self.waiting = 5
        self.doubted = 0

    async def allowed(self, _request: web.Request) -> bool:
        self.doubted += 1
        return True

    def rooms(self) -> list[dict[str, Any]]:
        self.asked += 1
        return [{**OPEN, "waiting": self.waiting}]


@pytest.fixture
def source() -> Source:
    return Source()


@pytest_asyncio.fixture
async def feed(source: Source) -> AsyncIterator[Feed]:
    feed = Feed(source.rooms, lambda: 1000.0, lambda: 990.0)
    task = asyncio.create_task(feed.run())
    yield feed
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest_asyncio.fixture
async def client(source: Source) -> AsyncIterator[TestClient[Any, Any]]:
    app = web.Application()
    add_feed(app, Feed(source.rooms, lambda: 1000.0), source.allowed)
    async with TestClient(TestServer(app)) as client:
        yield client


def data(frame: bytes, event: str) -> Any:
    """The data of one event of a frame."""
    for part in frame.decode().split("\n\n"):
        if part.startswith(f"event: {event}\ndata: "):
            return json.loads(part.partition("data: ")[2])
    raise AssertionError(f"no {event} in {frame!r}")


async def test_one_frame_is_rendered_for_all_listeners(feed, source):
    listeners = [feed.frames() for _ in range(DASHBOARDS)]
    async with asyncio.timeout(5):
        frames = await asyncio.gather(*(anext(each) for each in listeners))
    assert len({id(frame) for frame in frames}) == 1
    assert data(frames[0], "rooms")["rooms"][0]["waiting"] == 5
    words = data(frames[0], "shown")
    assert (words["at"], words["clock"]) == (1000.0, 990.0)
    assert words["rooms"]["shop"]["waiting"] == "5"
    for each in listeners:
        await each.aclose()
    assert feed.listeners == 0


async def test_a_change_triggers_a_frame_immediately(feed, source, monkeypatch):
    monkeypatch.setattr(live, "FRAME_SECONDS", 3600.0)
    async with asyncio.timeout(5), contextlib.aclosing(feed.frames()) as frames:
        await anext(frames)
        source.waiting = 6
        feed.notify()
        assert data(await anext(frames), "rooms")["rooms"][0]["waiting"] == 6


async def test_slow_listeners_get_only_the_newest_frame(feed, source, monkeypatch):
    monkeypatch.setattr(live, "FRAME_SECONDS", 3600.0)
    async with (
        asyncio.timeout(5),
        contextlib.aclosing(feed.frames()) as slow,
        contextlib.aclosing(feed.frames()) as quick,
    ):
        await anext(slow)
        await anext(quick)
        for waiting in range(10, 20):
            source.waiting = waiting
            feed.notify()
            assert data(await anext(quick), "rooms")["rooms"][0]["waiting"] == waiting
        assert data(await anext(slow), "rooms")["rooms"][0]["waiting"] == 19


async def test_no_frames_are_rendered_without_listeners(source, monkeypatch):
    monkeypatch.setattr(live, "FRAME_SECONDS", 0.001)
    feed = Feed(source.rooms)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await feed.run()
    assert source.asked == 0


async def test_a_frame_is_rendered_once_for_twenty_dashboards(client, source, monkeypatch):
    monkeypatch.setattr(live, "FRAME_SECONDS", 3600.0)
    monkeypatch.setattr(live, "RECHECK_SECONDS", 3600.0)
    rendered = 0

    def counted(room: Any) -> Any:
        nonlocal rendered
        rendered += 1
        return room_texts(room)

    monkeypatch.setattr(live, "room_texts", counted)
    feed: Feed = client.app[FEED]
    answers = [await client.get("/api/v1/events") for _ in range(DASHBOARDS)]
    frames = 100

    async def read(answer: Any) -> None:
        """Reads until the change."""
        waiting = None
        while waiting != source.waiting:
            event = await answer.content.readuntil(b"\n\n")
            if event.startswith(b"event: rooms"):
                waiting = data(event, "rooms")["rooms"][0]["waiting"]

    async def change() -> None:
        source.waiting += 1
        feed.notify()
        await asyncio.gather(*map(read, answers))

    async with asyncio.timeout(60):
        await change()  # the frames for new listeners are out
        rendered, asked = 0, source.asked
        for _ in range(frames):
            await change()
    assert rendered == source.asked - asked == frames
    for answer in answers:
        answer.close()
    # The permission isn't checked before every frame: each check is a request to the store.
    assert source.doubted == 0


async def test_the_feed_is_an_uncached_event_stream(client):
    async with client.get("/api/v1/events") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        assert await answer.content.readuntil(b"\n\n") == b"retry: 500\n\n"


async def test_a_response_ends_after_a_while_so_that_clients_reconnect(client, monkeypatch):
    monkeypatch.setattr(live, "MAX_RESPONSE_SECONDS", 0.05)
    async with asyncio.timeout(5), client.get("/api/v1/events") as answer:
        assert (await answer.read()).startswith(b"retry: 500\n\n")


async def test_listeners_are_bounded(client, monkeypatch):
    monkeypatch.setattr(live, "MAX_LISTENERS", 1)
    async with client.get("/api/v1/events") as first:
        await first.content.readuntil(b"event: rooms")
        async with client.get("/api/v1/events") as second:
            assert second.status == 503
            assert "Retry-After" in second.headers


async def test_listeners_that_receive_nothing_are_disconnected(source, monkeypatch):
    monkeypatch.setattr(live, "SEND_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(live, "FRAME_SECONDS", 0.001)
    app = web.Application()
    feed = Feed(source.rooms)
    add_feed(app, feed, source.allowed)
    async with TestServer(app) as server, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(server.host, server.port, limit=1)
        writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: a\r\n\r\n")
        while not feed.listeners:  # noqa: ASYNC110 - the server's turn
            await asyncio.sleep(0)
        # Buffers have to fill. Then neither the listener nor the connection is kept, though the other side keeps still.
        while feed.listeners or server.runner.server.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        del reader


async def test_stopping_disconnects_all_listeners(source):
    app = web.Application()
    add_feed(app, Feed(source.rooms), source.allowed)
    server = TestServer(app)
    await server.start_server()
    async with ClientSession() as session, session.get(server.make_url("/api/v1/events")) as answer:
        await answer.content.readuntil(b"event: rooms")
        async with asyncio.timeout(10):
            await asyncio.gather(server.close(), answer.read())
