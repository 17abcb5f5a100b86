"""Authenticates and authorizes every request to the admin listener before any handler sees it.

A request is authenticated by a bearer token, by the session cookie of a logged-in user (`waitroom.control.auth.login`)
or, while no user is configured, by coming from this machine. Requests without permission are rejected: viewers may only
read, changes require the operator role, and shops have two endpoints for the rooms of their token. Sale pages are open
here: they check the token in their path themselves.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol
from urllib.parse import quote

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from waitroom.control.auth.accounts import AccountRegistry, Accounts, AccountsError, Actor, ApiToken, Role
from waitroom.control.auth.login_store import LoginStore
from waitroom.control.auth.request_source import SAFE_METHODS, RequestSource, is_same_origin, request_source
from waitroom.control.auth.sale_links import SALE_PATHS
from waitroom.control.auth.session_cookie import COOKIE, AdminCookies, AdminSession
from waitroom.control.http import problem
from waitroom.errors import InvalidTokenError, StoreUnavailable, WaitroomError
from waitroom.net.forwarded import TrustedProxies
from waitroom.resources import resource_path
from waitroom.settings import Settings

log = structlog.get_logger()

LOGIN = "/login"
LOGOUT = "/logout"
API = "/api/"
# Programs request these, and they disclose nothing about anybody.
PUBLIC_PATHS = frozenset({"/healthz", "/readyz", "/metrics", LOGIN})
# The only endpoints of the role shop, with POST: paths as the router has them.
COMMANDS_PATH = f"{API}v1/rooms/{{room}}/sessions/{{session}}"
STOCK_PATH = f"{API}v1/rooms/{{room}}/stock"
SHOP_PATHS = frozenset({COMMANDS_PATH, STOCK_PATH})
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    # With "no-referrer", browsers would not send the origin of our own forms.
    "Referrer-Policy": "same-origin",
}
MAX_RECORDED_PATH = 200

ACTOR = web.RequestKey("actor", Actor)


class AuditRecorder(Protocol):
    """The audit log."""

    async def record(
        self,
        actor: Actor,
        action: str,
        *,
        room: str = "",
        old: Mapping[str, object] = {},
        new: Mapping[str, object] = {},
        note: str = "",
        outcome: str = "done",
    ) -> None:
        """Records an action or an attempt."""


class RefusedError(WaitroomError):
    """A request is rejected; `Access` turns this into a page or a problem response.

    Attributes:
        status: The HTTP status.
        detail: The problem and how to fix it, for the client.
        actor: The actor to record, if the attempt is to be recorded.
        retry_after: Seconds after which to retry; 0 for no such advice.
    """

    def __init__(
        self, status: int, title: str, detail: str, *, actor: Actor | None = None, retry_after: float = 0
    ) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.detail = detail
        self.actor = actor
        self.retry_after = retry_after


def _is_public(request: web.Request) -> bool:
    """Whether no authentication is required: public paths, and sale pages, which check their tokens."""
    resource = request.match_info.route.resource
    is_sale = resource is not None and resource.canonical in SALE_PATHS and request.method in SAFE_METHODS
    return is_sale or request.path in PUBLIC_PATHS


def _require_permission(request: web.Request, actor: Actor) -> None:
    """Raises `RefusedError` if the actor may not make this request, whether or not its path and its room exist."""
    if actor.role is Role.SHOP:
        resource = request.match_info.route.resource
        permitted = resource is not None and resource.canonical in SHOP_PATHS and request.method == "POST"
        if not permitted or request.match_info["room"] not in actor.rooms:
            detail = (
                "The role shop is limited to session commands and stock of the rooms that its token was created for: "
                "POST rooms/{room}/sessions/{session} and rooms/{room}/stock."
            )
            raise RefusedError(403, "Insufficient role", detail, actor=actor)
    elif request.path != LOGOUT:
        _require_role(actor, Role.VIEWER if request.method in SAFE_METHODS else Role.OPERATOR)


def _require_role(actor: Actor, required: Role) -> None:
    if not actor.role.includes(required):
        detail = f"This requires the role {required}; yours is {actor.role}. To change it: waitroom user role"
        raise RefusedError(403, "Insufficient role", detail, actor=actor)


class Access:
    """Authenticates requests and rejects those without permission.

    Args:
        settings: With ``secrets`` filled in.
        store: State shared by all controllers.
        audit: Records logins and rejected requests.
        local_token: The content of `waitroom.control.auth.accounts.LOCAL_TOKEN_FILE`.
        now: The wall clock, Unix time in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        store: LoginStore,
        audit: AuditRecorder,
        local_token: str,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.secrets = settings.secrets
        self.cookies = AdminCookies(settings.secrets)
        self.now = now
        self._audit = audit
        self._local_token = local_token
        self._registry = AccountRegistry(Path(settings.data_dir), settings.users)
        self._trusted = TrustedProxies(settings.trusted_proxies)
        self._last_error = ""
        environment = Environment(
            loader=FileSystemLoader(resource_path("templates") / "admin"), autoescape=True, undefined=StrictUndefined
        )
        self._page = environment.get_template("login.html")

    def install(self, app: web.Application) -> None:
        """Installs itself in front of all handlers of an application."""
        app.middlewares.append(self._guard)
        app.router.add_get(f"{API}v1/me", self._me)

    async def still_allowed(self, request: web.Request) -> bool:
        """Whether the sender of this request would still be admitted as the same actor; for long-lived responses."""
        try:
            actor = await self._actor(request, self.request_source(request))
        except RefusedError:
            return False
        return actor == request[ACTOR]

    def request_source(self, request: web.Request) -> RequestSource:
        """Returns the origin of a request."""
        return request_source(request, self._trusted)

    async def accounts(self) -> Accounts:
        """Returns the current accounts. Raises `RefusedError`."""
        try:
            accounts = await asyncio.to_thread(self._registry.current)
        except AccountsError as error:
            if str(error) != self._last_error:
                self._last_error = str(error)
                log.error("user database unavailable", cause=self._last_error)
            detail = "The file of users can't be read. The gateway's log gives the reason."
            raise RefusedError(503, "User database unavailable", detail) from error
        self._last_error = ""
        return accounts

    async def record(
        self,
        actor: Actor,
        action: str,
        *,
        old: Mapping[str, object] = {},
        new: Mapping[str, object] = {},
        note: str = "",
        outcome: str = "done",
    ) -> None:
        """Records an entry."""
        try:
            await self._audit.record(actor, action, old=old, new=new, note=note, outcome=outcome)
        except StoreUnavailable as error:
            log.warning("audit log write failed", action=action, who=actor.name, cause=str(error))

    def page(self, status: int, title: str, message: str = "", **values: Any) -> web.Response:
        """Returns the page for unauthenticated clients."""
        body = self._page.render({"form": False, "name": "", "next": "/", **values}, title=title, message=message)
        return web.Response(status=status, text=body, content_type="text/html", headers=PAGE_HEADERS)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if not _is_public(request):
                actor = await self._actor(request, self.request_source(request))
                request[ACTOR] = actor
                self._check_content_type(request)
                _require_permission(request, actor)
            return await handler(request)
        except RefusedError as refused:
            return await self._refusal_response(request, refused)

    async def _actor(self, request: web.Request, source: RequestSource) -> Actor:
        """Returns the sender of a request. Raises `RefusedError`."""
        if "Authorization" in request.headers:
            return await self._token_actor(request.headers["Authorization"], source)
        accounts = await self.accounts()
        actor = await self._session_actor(request, source, accounts)
        if actor is not None:
            return actor
        if accounts.users:
            detail = "Log in, or send an API token: Authorization: Bearer ..."
            raise RefusedError(401, "Authentication required", detail)
        if not source.is_local:
            self.refuse_remote(source)
        browser = is_same_origin(request, source.secure)
        actor = Actor("local", Role.ADMIN, source.address, "api" if browser is None else "dashboard")
        # Any page could make its reader's browser send a request here, and that browser may be on this machine.
        if request.method not in SAFE_METHODS and browser is False:
            self.refuse_cross_site(actor)
        return actor

    async def _token_actor(self, header: str, source: RequestSource) -> Actor:
        scheme, _, token = header.partition(" ")
        token = token.strip()
        if scheme.lower() == "bearer" and token and token.isascii():
            if hmac.compare_digest(_bytes(token), self._local_token.encode()) and source.is_local:
                return Actor("local", Role.ADMIN, source.address, "cli")
            found: ApiToken | None = (await self.accounts()).find_token(token)
            if found is not None:
                return Actor(f"token:{found.name}", found.role, source.address, "api", found.rooms)
        unknown = Actor("unknown", Role.VIEWER, source.address, "api")
        raise RefusedError(401, "Invalid token", "The token is unknown, or it was removed.", actor=unknown)

    async def _session_actor(self, request: web.Request, source: RequestSource, accounts: Accounts) -> Actor | None:
        """Returns the user that is logged in; None if there is none, or no longer."""
        session = self.session(request)
        user = None if session is None else accounts.users.get(session.name)
        if session is None or user is None or not hmac.compare_digest(user.session_version, session.session_version):
            return None
        safe = request.method in SAFE_METHODS
        try:
            if await self.store.ended(session.id):
                return None
        except StoreUnavailable as error:
            # No change would succeed now, but the operator must be able to see that the store is down.
            if not safe:
                raise RefusedError(503, "Store unavailable", "Nothing can be changed. Try again.") from error
        actor = Actor(user.name, user.role, source.address, "dashboard")
        if not safe and is_same_origin(request, source.secure) is not True:
            self.refuse_cross_site(actor)
        return actor

    def session(self, request: web.Request) -> AdminSession | None:
        """Returns the session of a request's cookie, whether or not it was ended."""
        value = request.cookies.get(COOKIE)
        try:
            return None if value is None else self.cookies.read(value, self.now())
        except InvalidTokenError:
            return None

    def refuse_remote(self, source: RequestSource) -> NoReturn:
        """Rejects remote clients while no user is configured. Raises `RefusedError`."""
        detail = (
            "No user is configured, so only clients on the gateway's own machine have access. Add a user there, "
            "with the command: waitroom user add NAME --role admin"
        )
        actor = Actor("unknown", Role.VIEWER, source.address, "dashboard")
        raise RefusedError(403, "No remote access", detail, actor=actor)

    def refuse_cross_site(self, actor: Actor) -> NoReturn:
        """Rejects requests that a foreign page made a browser send. Raises `RefusedError`."""
        detail = "The request didn't come from a page of this host. Behind a proxy, forward the Host header unchanged."
        raise RefusedError(403, "Cross-site request", detail, actor=actor)

    def _check_content_type(self, request: web.Request) -> None:
        """Rejects content types that no handler accepts, such as the plain forms of foreign pages."""
        if request.method in SAFE_METHODS or not request.body_exists:
            return
        wanted = JSON if request.path.startswith(API) else FORM
        if request.content_type != wanted:
            raise RefusedError(415, "Unsupported content type", f"Send it as {wanted}.")

    async def _refusal_response(self, request: web.Request, refused: RefusedError) -> web.StreamResponse:
        if refused.actor is not None:
            attempt = {"method": request.method, "path": request.path[:MAX_RECORDED_PATH]}
            await self.record(refused.actor, "request", new=attempt, note=refused.title, outcome="refused")
        if request.path.startswith(API):
            return self._problem_response(refused)
        if refused.status == 401:
            wanted = request.path_qs if request.method in SAFE_METHODS else "/"
            where = f"{LOGIN}?next={quote(wanted, safe='/')}"
            return web.Response(status=303, headers={"Location": where, "Cache-Control": "no-store"})
        response = self.page(refused.status, refused.title, refused.detail)
        _set_retry_after(response, refused)
        return response

    def _problem_response(self, refused: RefusedError) -> web.Response:
        response = problem(refused.status, refused.detail, title=refused.title)
        if refused.status == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="waitroom"'
        _set_retry_after(response, refused)
        return response

    async def _me(self, request: web.Request) -> web.Response:
        actor = request[ACTOR]
        body = {"name": actor.name, "role": actor.role, "via": actor.via}
        return web.json_response(body, headers={"Cache-Control": "no-store"})


def _set_retry_after(response: web.Response, refused: RefusedError) -> None:
    if refused.retry_after:
        response.headers["Retry-After"] = str(math.ceil(refused.retry_after))


def _bytes(text: str) -> bytes:
    """Returns the raw bytes of a header value, which need not be valid text."""
    return text.encode("utf-8", "surrogateescape")
