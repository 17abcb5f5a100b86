"""The bodies of requests to the admin listener: bounded in length and time."""

from __future__ import annotations

import asyncio

from aiohttp import web

from waitroom.control.api.errors import BadRequest

BODY_SECONDS = 10.0


async def read_body(request: web.Request, most: int, seconds: float = BODY_SECONDS) -> bytes:
    """A body of at most ``most`` bytes, within so many seconds.

    Raises:
        BadRequest: It is longer (413), too slow (408) or broken off (400; then nobody is there to be told).
    """
    read = b""
    try:
        async with asyncio.timeout(seconds):
            while piece := await request.content.read(most + 1 - len(read)):
                read += piece
                if len(read) > most:
                    raise BadRequest(413, f"The body is longer than {most:,} bytes; none that is meant for this is.")
    # A connection that was closed by a time-out of TCP's is a TimeoutError as well, and nobody minds which.
    except TimeoutError as error:
        raise BadRequest(408, f"The body didn't come within {seconds:g} seconds.") from error
    except (OSError, web.RequestPayloadError) as error:
        raise BadRequest(400, "The body was broken off.") from error
    return read
