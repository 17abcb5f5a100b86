"""The export of the audit log, also if the store fails meanwhile."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from waitroom.control.api.routes import Api
from waitroom.control.audit.chain import Entry
from waitroom.errors import StoreUnavailable

ENTRIES = 3000  # more than is sent at once


@dataclass
class Log:
    """An audit log whose store fails after a number of entries, if that isn't None."""

    breaks_after: int | None = None

    async def export(self) -> AsyncIterator[Entry]:
        words = ("2026-09-21T14:12:40.000Z", "ada", "operator", "192.0.2.7", "dashboard", "change", "shop")
        for number in range(ENTRIES):
            if number == self.breaks_after:
                raise StoreUnavailable("ConnectionError: the store is gone")
            yield Entry(f"{number}-0", *words, {}, {}, "", "done", "0" * 64, "1" * 64)


async def exported(log: Log) -> tuple[int, bytes, BaseException | None]:
    """Returns the status, the received body, and the error that ended it."""
    nothing: Any = None
    app = web.Application()
    Api(nothing, nothing, nothing, nothing, log, {}).add_to(app)  # type: ignore[arg-type]
    body, ended = b"", None
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession() as http,
        http.get(server.make_url("/api/v1/audit/export")) as answer,
    ):
        try:
            async for piece in answer.content.iter_any():
                body += piece
        except aiohttp.ClientError as error:
            ended = error
        return answer.status, body, ended


async def test_an_export_is_complete() -> None:
    status, body, ended = await exported(Log())
    assert (status, ended) == (200, None)
    assert [json.loads(line)["id"] for line in body.splitlines()] == [f"{number}-0" for number in range(ENTRIES)]


@pytest.mark.parametrize("count", [1, 2000])
async def test_an_export_interrupted_by_the_store_is_incomplete(count: int) -> None:
    with capture_logs() as logged:
        status, body, ended = await exported(Log(breaks_after=count))
    assert (status, type(ended)) == (200, aiohttp.ClientPayloadError)
    assert [json.loads(line)["id"] for line in body.splitlines()] == [f"{number}-0" for number in range(count)]
    (entry,) = (one for one in logged if one["log_level"] == "error")
    assert (entry["event"], entry["cause"]) == (
        "audit log export failed",
        "ConnectionError: the store is gone",
    )


async def test_an_export_that_cannot_begin_is_a_problem() -> None:
    status, body, ended = await exported(Log(breaks_after=0))
    assert (status, ended) == (503, None)
    assert json.loads(body)["type"] == "urn:waitroom:problem:store"
