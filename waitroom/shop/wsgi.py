"""WSGI middleware, for Flask, Django and others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from waitroom.shop.proof import HEADER, VIAS, InvalidProofError, ProofVerifier, Via, refusal

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_KEY: Final = "HTTP_" + HEADER.upper().replace("-", "_")


class WSGIMiddleware:
    """Refuses requests without a valid proof with 403. Puts the claims into ``environ["waitroom"]``.

    Args:
        app: The shop.
        room, secrets, via, leave_alone: See `ProofVerifier`.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        room: str,
        secrets: Sequence[str],
        via: Iterable[Via] = VIAS,
        leave_alone: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._verifier = ProofVerifier(room=room, secrets=secrets, via=via, leave_alone=leave_alone)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handles one request, as PEP 3333 says."""
        # Without SCRIPT_NAME, which some servers take from a header: the shop's routes don't see it either.
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        if self._verifier.leaves_alone(path):
            return self._app(environ, start_response)
        # Servers join several headers with commas, which no proof contains.
        proof = environ.get(_KEY)
        try:
            environ["waitroom"] = self._verifier.verify([] if proof is None else [proof])
        except InvalidProofError as error:
            body = refusal(error)
            headers = [
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
            ]
            start_response("403 Forbidden", headers)
            return [b"" if environ.get("REQUEST_METHOD") == "HEAD" else body]
        return self._app(environ, start_response)
