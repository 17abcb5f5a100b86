"""A part of a shop as a process of its own, so that it can be killed: answers with its name and the body it got."""

from __future__ import annotations

import asyncio
import contextlib
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    name = sys.argv[2].encode()
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # the other end is done with it
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            body = name + b" " + await reader.readexactly(int(length or 0))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
