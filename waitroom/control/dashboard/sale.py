"""The sale page: the figures of one room in large type, for everybody who has a link. It shows nothing else.

The page polls a small JSON document, so that no watcher holds a connection of the listener that operators need. The
document is rendered at most once a second for each room, and all sale pages together have a budget of requests.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiohttp import web

from waitroom.budgets import TokenBucket
from waitroom.control.auth.sale_links import SALE_FIGURES_PATH, SALE_PATH
from waitroom.control.dashboard.pages import PAGES
from waitroom.errors import InvalidTokenError, StoreUnavailable

FIGURES_SECONDS: Final = 1.0
MAX_REQUESTS_PER_SECOND: Final = 100.0  # of 200 pages, each asking every two seconds
RETRY_SECONDS: Final = 5
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
    "Cross-Origin-Opener-Policy": "same-origin",
}
# Style and script are part of the page: it may not load anything that needs a login, such as the static files.
_POLICY: Final = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

Check = Callable[[str, str], Awaitable[None]]
Figures = Mapping[str, Any]


class SalePages:
    """Serves the sale pages of all rooms.

    Args:
        figures: Returns the texts of a room, see `sale_texts`; raises `KeyError` if there is no such room.
        check: Checks a token for a room; see `waitroom.control.auth.sale_links.SaleLinks.check`.
        monotonic: Seconds of any clock that never goes back.
    """

    def __init__(
        self, figures: Callable[[str], Figures], check: Check, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._figures = figures
        self._check = check
        self._monotonic = monotonic
        self._budget = TokenBucket(MAX_REQUESTS_PER_SECOND, MAX_REQUESTS_PER_SECOND)
        self._rendered: dict[str, tuple[float, Figures]] = {}

    def add_to(self, app: web.Application) -> None:
        """Adds the routes to an application that has the dashboard."""
        app.router.add_get(SALE_PATH, self._page)
        app.router.add_get(SALE_FIGURES_PATH, self._json)

    async def _page(self, request: web.Request) -> web.Response:
        figures, status = await self._checked(request)
        if figures is None:
            return _page_response(request, "sale_refused.html", {"busy": status != 404}, status)
        return _page_response(request, "sale.html", {"now": figures}, status)

    async def _json(self, request: web.Request) -> web.Response:
        figures, status = await self._checked(request)
        headers = _HEADERS if status in (200, 404) else {**_HEADERS, "Retry-After": str(RETRY_SECONDS)}
        text = json.dumps({} if figures is None else figures)
        return web.Response(text=text, status=status, content_type="application/json", headers=headers)

    async def _checked(self, request: web.Request) -> tuple[Figures | None, int]:
        """Returns the figures if the request's token is valid, and the status of the response."""
        room = request.match_info["room"]
        try:
            await self._check(room, request.match_info["token"])
            if not self._budget.take(self._monotonic()):  # only watchers use it up
                return None, 503
            return self._current(room), 200
        except (InvalidTokenError, KeyError):
            return None, 404
        except StoreUnavailable:
            return None, 503

    def _current(self, room: str) -> Figures:
        now = self._monotonic()
        rendered_at, figures = self._rendered.get(room, (float("-inf"), {}))
        if now - rendered_at >= FIGURES_SECONDS:
            figures = self._figures(room)
            self._rendered[room] = (now, figures)
        return figures


def _page_response(request: web.Request, template: str, values: Mapping[str, object], status: int) -> web.Response:
    nonce = secrets.token_urlsafe(16)
    body = request.app[PAGES].render(template, {**values, "nonce": nonce})
    headers = {**_HEADERS, "Content-Security-Policy": _POLICY.format(nonce=nonce)}
    if status == 503:
        headers["Retry-After"] = str(RETRY_SECONDS)
    return web.Response(text=body, status=status, content_type="text/html", headers=headers)
