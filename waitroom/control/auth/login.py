"""Login and logout."""

from __future__ import annotations

import hmac
import math
import secrets
from urllib.parse import parse_qs

from aiohttp import web

from waitroom.budgets import neighbourhood
from waitroom.control.auth.accounts import Actor, Role, User
from waitroom.control.auth.middleware import ACTOR, FORM, LOGIN, LOGOUT, Access, RefusedError
from waitroom.control.auth.passwords import PasswordChecker, TooBusyError, dummy_hash, matching_step
from waitroom.control.auth.request_source import RequestSource, is_same_origin, safe_path
from waitroom.control.auth.session_cookie import (
    COOKIE,
    DEVICE_COOKIE,
    DEVICE_SECONDS,
    SESSION_SECONDS,
    AdminSession,
    Device,
    DeviceCookies,
)
from waitroom.control.http import RequestError, read_body
from waitroom.errors import InvalidTokenError, StoreUnavailable

MAX_FORM_BYTES = 8 << 10
MAX_NAME_LENGTH = 64
WRONG_CREDENTIALS = "Wrong name, password or code."
# Checked for users without a second factor, so that their responses take as long as others'.
_DUMMY_SECRET = "A" * 32


class Login:
    """The login and logout pages and requests."""

    def __init__(self, access: Access, passwords: PasswordChecker) -> None:
        self._access = access
        self._passwords = passwords
        self._devices = DeviceCookies(access.secrets)

    def install(self, app: web.Application) -> None:
        """Adds its handlers to an application; they require the middleware of `Access`."""
        app.router.add_get(LOGIN, self._show_form)
        app.router.add_post(LOGIN, self._log_in)
        app.router.add_post(LOGOUT, self._log_out)

    async def _show_form(self, request: web.Request) -> web.StreamResponse:
        await self._require_users(self._access.request_source(request))
        return self._page(200, "", next=safe_path(request.query.get("next", "/")))

    async def _require_users(self, source: RequestSource) -> dict[str, User]:
        """Returns the users; if there are none, redirects local visitors to the rooms."""
        accounts = await self._access.accounts()
        if not accounts.users:
            if not source.is_local:
                self._access.refuse_remote(source)
            raise web.HTTPSeeOther("/")
        return dict(accounts.users)

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        source = self._access.request_source(request)
        users = await self._require_users(source)
        if is_same_origin(request, source.secure) is not True:
            self._access.refuse_cross_site(Actor("unknown", Role.VIEWER, source.address, "dashboard"))
        form = await _read_form(request)
        name, target = form.get("name", "").strip().lower()[:MAX_NAME_LENGTH], safe_path(form.get("next", "/"))
        user = users.get(name)
        # The name of an unknown user is not recorded: it may be a mistyped password.
        actor = Actor("unknown" if user is None else user.name, Role.VIEWER, source.address, "dashboard")
        device = self._known_device(request, name)
        try:
            wait = await self._access.store.attempt(name, source.address, device)
            if wait:
                seconds = math.ceil(wait)
                await self._access.record(actor, "login", note="too many attempts", outcome="refused")
                message = f"Too many attempts. Try again in {seconds} s."
                response = self._page(429, message, next=target, name=name)
                response.headers["Retry-After"] = str(seconds)
                return response
            known = device is not None
            correct = await self._is_correct(user, name, form, users, source, known=known)
            reason = await self._refusal_reason(user, name, form, correct=correct)
            if reason or user is None:
                await self._access.record(actor, "login", note=reason, outcome="refused")
                return self._page(403, WRONG_CREDENTIALS, next=target, name=name)
            await self._access.store.succeeded(name, source.address, device)
        except TooBusyError as error:
            raise RefusedError(
                503, "Too many logins", "Too many logins are in progress. Try again.", retry_after=5
            ) from error
        except StoreUnavailable as error:
            detail = "Nobody can log in now. On the gateway's own machine, waitroom status still shows the rooms."
            raise RefusedError(503, "Store unavailable", detail, retry_after=5) from error
        await self._access.record(Actor(user.name, user.role, source.address, "dashboard"), "login")
        return self._start_session(user, target, secure=source.secure)

    async def _is_correct(
        self,
        user: User | None,
        name: str,
        form: dict[str, str],
        users: dict[str, User],
        source: RequestSource,
        *,
        known: bool,
    ) -> bool:
        """Whether the password is correct. Takes as long for an unknown user. Raises `TooBusyError`."""
        hashed = dummy_hash(name, [one.password_hash for one in users.values()]) if user is None else user.password_hash
        queue = name if known else neighbourhood(source.address)
        return await self._passwords.verify(form.get("password", ""), hashed, queue, known=known) and user is not None

    def _known_device(self, request: web.Request, name: str) -> str | None:
        """Returns the id of the client's device if the user of this name has logged in from it before."""
        value = request.cookies.get(DEVICE_COOKIE)
        try:
            device = None if value is None else self._devices.read(value, self._access.now())
        except InvalidTokenError:
            return None
        return device.id if device is not None and hmac.compare_digest(_bytes(device.name), _bytes(name)) else None

    async def _refusal_reason(self, user: User | None, name: str, form: dict[str, str], *, correct: bool) -> str:
        """Returns why a login is refused, for the audit log; empty if it isn't. Takes as long whatever the reason."""
        secret = None if user is None else user.totp_secret
        step = matching_step(secret or _DUMMY_SECRET, form.get("code", ""), self._access.now())
        if user is None:
            return "unknown user"
        if not correct:
            return "wrong password"
        if secret is not None:
            if step is None:
                return "wrong code"
            if not await self._access.store.use_code(name, step):
                return "code already used"
        return ""

    def _start_session(self, user: User, target: str, *, secure: bool) -> web.StreamResponse:
        session = AdminSession(
            user.name, secrets.token_urlsafe(16), user.session_version, int(self._access.now()) + SESSION_SECONDS
        )
        response = web.Response(status=303, headers={"Location": target, "Cache-Control": "no-store"})
        response.set_cookie(
            COOKIE,
            self._access.cookies.sign(session),
            max_age=SESSION_SECONDS,
            path="/",
            secure=secure,
            httponly=True,
            samesite="Strict",
        )
        device = Device(user.name, secrets.token_urlsafe(16), int(self._access.now()) + DEVICE_SECONDS)
        response.set_cookie(
            DEVICE_COOKIE,
            self._devices.sign(device),
            max_age=DEVICE_SECONDS,
            path="/",
            secure=secure,
            httponly=True,
            samesite="Strict",
        )
        return response

    async def _log_out(self, request: web.Request) -> web.StreamResponse:
        session = self._access.session(request)
        response = web.Response(status=303, headers={"Location": LOGIN, "Cache-Control": "no-store"})
        if session is not None:
            try:
                await self._access.store.end_session(session.id, session.ends_at - self._access.now())
            except StoreUnavailable as error:
                detail = "The session can't be ended now. Try again, or close the browser."
                raise RefusedError(503, "Store unavailable", detail, retry_after=5) from error
            await self._access.record(request[ACTOR], "logout")
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
        return response

    def _page(self, status: int, message: str, *, next: str, name: str = "") -> web.Response:  # noqa: A002
        return self._access.page(status, "Log in", message, form=True, next=next, name=name)


async def _read_form(request: web.Request) -> dict[str, str]:
    """Returns the form's fields, the first value of each. Raises `RefusedError`."""
    if request.content_type != FORM:
        raise RefusedError(415, "Unsupported content type", f"Send it as {FORM}.")
    if request.content_length is None or request.content_length > MAX_FORM_BYTES:
        raise RefusedError(413, "Form too large", f"A login form has at most {MAX_FORM_BYTES} bytes.")
    try:
        body = await read_body(request, MAX_FORM_BYTES)
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=10)
    except RequestError as error:
        raise RefusedError(error.status, "Unreadable form", str(error)) from error
    except ValueError as error:
        raise RefusedError(400, "Invalid form", "The form of the login page has four fields.") from error
    return {name: values[0] for name, values in fields.items()}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
