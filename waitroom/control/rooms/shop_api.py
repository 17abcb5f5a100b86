"""Commands of the shops by the API: the same as in the response header ``Waitroom-Command``.

There may be one for every buyer, so a shop's commands are counted and not audited: they would push the operators'
changes out of the audit log. Those of all other roles are audited. At most `MAX_CONCURRENT` commands use the store at a
time, which leaves connections for the admission loops, however many commands arrive.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import structlog

from waitroom.control.audit.log import Audit
from waitroom.control.auth.accounts import Actor, Role
from waitroom.control.rooms.audit_outbox import audit_event
from waitroom.control.rooms.changes import InvalidChangeError, record_refusal
from waitroom.errors import StoreUnavailable, WaitroomError
from waitroom.logs import RateLimitedLog
from waitroom.queue.store import ApiCommand, QueueStore, SessionChange
from waitroom.shop_commands import SESSION_COMMANDS, ShopCommand
from waitroom.store.connection import POOL_CONNECTIONS

log = RateLimitedLog(structlog.get_logger())

MAX_CONCURRENT = POOL_CONNECTIONS // 2
MAX_WAIT_SECONDS = 2.0
ACTION, STOCK_ACTION = "session_command", "stock"

_OPERATIONS: dict[str, ApiCommand] = {"release": "api_release", "hold": "api_hold", "extend": "api_extend"}


class UnknownSessionError(WaitroomError):
    """No visitor is active in the room with this session."""


class ShopApi:
    """Executes the shops' commands.

    Methods raise `KeyError` for an unknown room, and `StoreUnavailable` if the outcome is unknown; all commands may be
    repeated.

    Args:
        stores: The stores, by room.
        audit: The audit log.
    """

    def __init__(self, stores: Mapping[str, QueueStore], audit: Audit) -> None:
        self._stores = stores
        self._audit = audit
        self._free = asyncio.Semaphore(MAX_CONCURRENT)
        self._counts = Counter(
            {
                (room, command, outcome): 0
                for room in stores
                for command in (*SESSION_COMMANDS, STOCK_ACTION)
                for outcome in ("done", "failed", *(("unknown",) if command != STOCK_ACTION else ()))
            }
        )

    def counts(self) -> Iterable[tuple[tuple[str, str, str], int]]:
        """The number of commands by room, command and outcome: done, failed, or unknown for an unknown session."""
        return self._counts.items()

    async def command_session(self, room: str, session: int, command: ShopCommand, *, actor: Actor) -> None:
        """Executes one of `SESSION_COMMANDS`. Raises `UnknownSessionError`."""
        store = self._stores[room]
        wanted = {"session": f"{session:x}", "command": command.name, "seconds": command.number}
        event = "" if actor.role is Role.SHOP else audit_event(actor, ACTION, "", wanted)
        change = SessionChange(_OPERATIONS[command.name], session, command.number * 1000)
        try:
            async with self._slot():
                done = await store.command_session(change, event)
            if not done:
                raise UnknownSessionError("No visitor is active in this room with this session, or it has ended.")
        except (StoreUnavailable, UnknownSessionError) as error:
            await self._refused(actor, ACTION, room, command.name, error, wanted)
            raise
        self._counts[room, command.name, "done"] += 1

    async def report_stock(self, room: str, remaining: int, *, actor: Actor) -> None:
        """Stores the number of units left, which visitors see."""
        store = self._stores[room]
        try:
            async with self._slot():
                await store.set_remaining(remaining, by_api=True)
        except StoreUnavailable as error:
            await self._refused(actor, STOCK_ACTION, room, STOCK_ACTION, error, {"remaining": remaining})
            raise
        self._counts[room, STOCK_ACTION, "done"] += 1
        if actor.role is not Role.SHOP:
            await self._audit.record(actor, STOCK_ACTION, room=room, new={"remaining": remaining})

    async def refuse_invalid(
        self, room: str, action: str, error: InvalidChangeError, body: Mapping[str, object], *, actor: Actor
    ) -> None:
        """Records a command that can't be read."""
        if actor.role is Role.SHOP:
            log.warning("invalid command of the shop", room, room=room, who=actor.name, cause=str(error))
        else:
            await record_refusal(self._audit, actor, action, room, error, body)

    async def _refused(
        self, actor: Actor, action: str, room: str, command: str, error: WaitroomError, wanted: Mapping[str, object]
    ) -> None:
        outcome = "unknown" if isinstance(error, UnknownSessionError) else "failed"
        self._counts[room, command, outcome] += 1
        if actor.role is Role.SHOP:
            event = "command for an unknown session" if outcome == "unknown" else "command of the shop failed"
            log.warning(event, room, room=room, who=actor.name, cause=str(error), **wanted)
        else:
            await record_refusal(self._audit, actor, action, room, error, wanted)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """Waits until another command may use the store. Raises `StoreUnavailable` if that takes too long."""
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError as error:
            raise StoreUnavailable("too many commands of shops are waiting for the store") from error
        try:
            yield
        finally:
            self._free.release()
