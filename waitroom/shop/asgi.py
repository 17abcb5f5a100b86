"""ASGI middleware, for FastAPI, Starlette, Django under ASGI and others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any, Final

from waitroom.shop.proof import HEADER, VIAS, InvalidProofError, ProofVerifier, Via, refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_NAME: Final = HEADER.lower().encode()
_POLICY_VIOLATION: Final = 1008  # RFC 6455; before the handshake it becomes a 403


class ASGIMiddleware:
    """Refuses requests and WebSockets without a valid proof with 403. Puts the claims into ``scope["waitroom"]``.

    Args:
        app: The shop.
        room, secrets, via, leave_alone: See `ProofVerifier`.
    """

    def __init__(
        self,
        app: Application,
        *,
        room: str,
        secrets: Sequence[str],
        via: Iterable[Via] = VIAS,
        leave_alone: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._verifier = ProofVerifier(room=room, secrets=secrets, via=via, leave_alone=leave_alone)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection, as the ASGI specification says."""
        if scope["type"] == "lifespan" or self._verifier.leaves_alone(_route_path(scope)):
            await self._app(scope, receive, send)
            return
        proofs = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == _NAME]
        try:
            claims = self._verifier.verify(proofs)
        except InvalidProofError as error:
            await _refuse(scope, send, refusal(error))
        else:
            await self._app({**scope, "waitroom": claims}, receive, send)


def _route_path(scope: Scope) -> str:
    """The path that the shop's routes see: without the prefix at which the shop is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    if root and (path == root or path.startswith(root.rstrip("/") + "/")):
        return path[len(root.rstrip("/")) :]
    return path


async def _refuse(scope: Scope, send: Send, body: bytes) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})
