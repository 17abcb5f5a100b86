"""Login and logout."""

from __future__ import annotations

import math
import secrets
from urllib.parse import parse_qs

from aiohttp import web

from waitroom.control.auth.accounts import Actor, Role, User
from waitroom.control.auth.middleware import ACTOR, FORM, LOGIN, LOGOUT, Access, Refused
from waitroom.control.auth.passwords import Passwords, TooBusy, matching_step, stand_in
from waitroom.control.auth.request_origin import Whence, from_own_page, own_path
from waitroom.control.auth.session_cookie import COOKIE, SESSION_SECONDS, AdminSession
from waitroom.control.http import BadRequest, read_body
from waitroom.errors import StoreUnavailable

LONGEST_FORM = 8 << 10
LONGEST_NAME = 64
WRONG = "Wrong name, password or code."
# Checked for users without a second factor, so that their responses take as long as others'.
_NO_SECRET = "A" * 32


class Login:
    """The login and logout pages and requests."""

    def __init__(self, access: Access, passwords: Passwords) -> None:
        self._access = access
        self._passwords = passwords

    def install(self, app: web.Application) -> None:
        """Adds its handlers to an application; they require the middleware of `Access`."""
        app.router.add_get(LOGIN, self._form)
        app.router.add_post(LOGIN, self._log_in)
        app.router.add_post(LOGOUT, self._log_out)

    async def _form(self, request: web.Request) -> web.StreamResponse:
        await self._must_have_users(self._access.whence(request))
        return self._page(200, "", next=own_path(request.query.get("next", "/")))

    async def _must_have_users(self, here: Whence) -> dict[str, User]:
        """Returns the users; if there are none, redirects local visitors to the rooms."""
        people = await self._access.people()
        if not people.users:
            if not here.here:
                self._access.refuse_strangers(here)
            raise web.HTTPSeeOther("/")
        return dict(people.users)

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        here = self._access.whence(request)
        users = await self._must_have_users(here)
        if from_own_page(request, here.secure) is not True:
            self._access.refuse_other_pages(Actor("unknown", Role.VIEWER, here.address, "dashboard"))
        form = await _form_of(request)
        name, target = form.get("name", "").strip().lower()[:LONGEST_NAME], own_path(form.get("next", "/"))
        user = users.get(name)
        # The name of an unknown user is not recorded: it may be a mistyped password.
        actor = Actor("unknown" if user is None else user.name, Role.VIEWER, here.address, "dashboard")
        try:
            wait = await self._access.store.attempt(name, here.address)
            if wait:
                seconds = math.ceil(wait)
                await self._access.record(actor, "login", note="too many attempts", outcome="refused")
                message = f"Too many attempts. Try again in {seconds} s."
                answer = self._page(429, message, next=target, name=name)
                answer.headers["Retry-After"] = str(seconds)
                return answer
            reason = await self._reason_against(user, name, form, users)
            if reason or user is None:
                await self._access.record(actor, "login", note=reason, outcome="refused")
                return self._page(403, WRONG, next=target, name=name)
            await self._access.store.succeeded(name, here.address)
        except TooBusy as error:
            raise Refused(
                503, "Too many logins", "Too many logins are in progress. Try again.", retry_after=5
            ) from error
        except StoreUnavailable as error:
            detail = "Nobody can log in now. On the gateway's own machine, waitroom status still shows the rooms."
            raise Refused(503, "Store unavailable", detail, retry_after=5) from error
        await self._access.record(Actor(user.name, user.role, here.address, "dashboard"), "login")
        return self._let_in(user, target, secure=here.secure)

    async def _reason_against(self, user: User | None, name: str, form: dict[str, str], users: dict[str, User]) -> str:
        """Returns why a login is refused, for the audit log; empty if it isn't. Takes as long whatever the reason."""
        hashed = stand_in(name, [one.password_hash for one in users.values()]) if user is None else user.password_hash
        right = await self._passwords.right(form.get("password", ""), hashed)
        secret = None if user is None else user.totp_secret
        step = matching_step(secret or _NO_SECRET, form.get("code", ""), self._access.now())
        if user is None:
            return "unknown user"
        if not right:
            return "wrong password"
        if secret is not None:
            if step is None:
                return "wrong code"
            if not await self._access.store.use_code(name, step):
                return "code already used"
        return ""

    def _let_in(self, user: User, target: str, *, secure: bool) -> web.StreamResponse:
        session = AdminSession(
            user.name, secrets.token_urlsafe(16), user.stamp, int(self._access.now()) + SESSION_SECONDS
        )
        answer = web.Response(status=303, headers={"Location": target, "Cache-Control": "no-store"})
        answer.set_cookie(
            COOKIE,
            self._access.cookies.sign(session),
            max_age=SESSION_SECONDS,
            path="/",
            secure=secure,
            httponly=True,
            samesite="Strict",
        )
        return answer

    async def _log_out(self, request: web.Request) -> web.StreamResponse:
        session = self._access.session(request)
        answer = web.Response(status=303, headers={"Location": LOGIN, "Cache-Control": "no-store"})
        if session is not None:
            try:
                await self._access.store.end_session(session.id, session.ends_at - self._access.now())
            except StoreUnavailable as error:
                detail = "The session can't be ended now. Try again, or close the browser."
                raise Refused(503, "Store unavailable", detail, retry_after=5) from error
            await self._access.record(request[ACTOR], "logout")
        answer.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
        return answer

    def _page(self, status: int, message: str, *, next: str, name: str = "") -> web.Response:  # noqa: A002
        return self._access.page(status, "Log in", message, form=True, next=next, name=name)


async def _form_of(request: web.Request) -> dict[str, str]:
    """Returns the form's fields, the first value of each. Raises `Refused`."""
    if request.content_type != FORM:
        raise Refused(415, "Unsupported content type", f"Send it as {FORM}.")
    if request.content_length is None or request.content_length > LONGEST_FORM:
        raise Refused(413, "Form too large", f"A login form has at most {LONGEST_FORM} bytes.")
    try:
        body = await read_body(request, LONGEST_FORM)
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=10)
    except BadRequest as error:
        raise Refused(error.status, "Unreadable form", str(error)) from error
    except ValueError as error:
        raise Refused(400, "Invalid form", "The form of the login page has four fields.") from error
    return {name: values[0] for name, values in fields.items()}
