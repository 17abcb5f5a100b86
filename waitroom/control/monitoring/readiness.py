"""Probes the public port, in the protocol it uses."""

from __future__ import annotations

import asyncio
import ssl

from waitroom.net.proxy_protocol import LOCAL
from waitroom.settings import Settings

PROBE_SECONDS = 2.0

_REQUEST = b"HEAD /.waitroom/status HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n"
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound


async def is_serving(settings: Settings) -> bool:
    """Whether a worker responds on the public port. Any response will do, even to a host that no room has."""
    host, _, port = settings.listen.rpartition(":")
    host = host.strip("[]")
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(_ANYWHERE.get(host, host), int(port))
            if settings.proxy_protocol:
                writer.write(LOCAL)
            if settings.tls_certificate is not None:
                await writer.start_tls(_any_certificate())
            writer.write(_REQUEST % settings.listen.encode())
            return (await reader.readline()).startswith(b"HTTP/1.1 ")
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()


def _any_certificate() -> ssl.SSLContext:
    """Returns a TLS context that accepts any certificate.

    The certificate is for the shop's name, perhaps from a CA that this machine doesn't trust, and the probe connects to
    an address of this machine. Nothing secret is sent and no content is used: the probe only shows that a worker
    completes a handshake and responds.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
