"""Why the store failed: the errors of redis-py by kind, with what an operator can do about each. Pure."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from redis import exceptions

LONGEST_DETAIL: Final = 200


class StoreErrorKind(StrEnum):
    """The kinds of failures; stable names, for logs and for `waitroom doctor`."""

    READ_ONLY = "read_only"
    MOVED = "moved"
    NO_REPLICAS = "no_replicas"
    PRIMARY_DOWN = "primary_down"
    AUTHENTICATION = "authentication"
    PERMISSION = "permission"
    UNKNOWN_COMMAND = "unknown_command"
    OUT_OF_MEMORY = "out_of_memory"
    NOT_SAVING = "not_saving"
    LOADING = "loading"
    BUSY = "busy"
    NO_DATABASE = "no_database"
    TOO_MANY_CLIENTS = "too_many_clients"
    TLS = "tls"
    UNRESOLVED = "unresolved"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    NO_CONNECTION = "no_connection"
    CLOSED = "closed"
    PROTOCOL = "protocol"
    SCRIPT_MISSING = "script_missing"
    DATA = "data"
    OTHER = "other"


class TlsTimeoutError(exceptions.TimeoutError):
    """No TLS connection to the store in time."""


class ClosedOnConnectError(exceptions.ConnectionError):
    """The server closed a connection before it was ready for use."""


@dataclass(frozen=True, slots=True)
class StoreFailure:
    """A failure of the store.

    Attributes:
        kind: Its kind.
        summary: The cause and the remedy for an operator, a clause without a period.
        detail: The server's or the library's own words, bounded, without arguments of commands.
        reconnect: Whether to drop the connections made so far: they may lead to a server that is no longer the primary,
            or be dead as well.
        retry: Whether a call that may run twice should be made again immediately.
    """

    kind: StoreErrorKind
    summary: str
    detail: str = ""
    reconnect: bool = False
    retry: bool = False


_Kind = StoreErrorKind

# By the first word of the server's reply.
_BY_CODE: Final = {
    "READONLY": _Kind.READ_ONLY,
    "MOVED": _Kind.MOVED,
    "ASK": _Kind.MOVED,
    "TRYAGAIN": _Kind.MOVED,
    "CLUSTERDOWN": _Kind.MOVED,
    "CROSSSLOT": _Kind.MOVED,
    "NOREPLICAS": _Kind.NO_REPLICAS,
    "MASTERDOWN": _Kind.PRIMARY_DOWN,
    "NOAUTH": _Kind.AUTHENTICATION,
    "WRONGPASS": _Kind.AUTHENTICATION,
    "NOPERM": _Kind.PERMISSION,
    "OOM": _Kind.OUT_OF_MEMORY,
    "MISCONF": _Kind.NOT_SAVING,
    "LOADING": _Kind.LOADING,
    "BUSY": _Kind.BUSY,
    "NOSCRIPT": _Kind.SCRIPT_MISSING,
    "WRONGTYPE": _Kind.DATA,
}
# Older versions of redis-py tell some codes only by the exception.
_BY_CLASS: Final = (
    (exceptions.ReadOnlyError, _Kind.READ_ONLY),
    (exceptions.MasterDownError, _Kind.PRIMARY_DOWN),
    (exceptions.AskError, _Kind.MOVED),
    (exceptions.TryAgainError, _Kind.MOVED),
    (exceptions.ClusterDownError, _Kind.MOVED),
    (exceptions.ClusterCrossSlotError, _Kind.MOVED),
    (exceptions.BusyLoadingError, _Kind.LOADING),
    (exceptions.OutOfMemoryError, _Kind.OUT_OF_MEMORY),
    (exceptions.NoPermissionError, _Kind.PERMISSION),
    (exceptions.NoScriptError, _Kind.SCRIPT_MISSING),
    (exceptions.AuthenticationError, _Kind.AUTHENTICATION),
)
# By a part of the text: servers before Redis 7 wrap the errors of a script, and some errors have no code of their own.
_BY_TEXT: Final = (
    (re.compile(rf"-({'|'.join(_BY_CODE)}) "), None),
    (re.compile(r"(?i)unknown command|unknown redis command"), _Kind.UNKNOWN_COMMAND),
    (re.compile(r"(?i)no permissions|ACL failure|can't run this command"), _Kind.PERMISSION),
    (re.compile(r"(?i)invalid password|AUTH <password>"), _Kind.AUTHENTICATION),
    (re.compile(r"DB index is out of range"), _Kind.NO_DATABASE),
    (re.compile(r"max number of clients"), _Kind.TOO_MANY_CLIENTS),
    (re.compile(r"cluster support disabled"), _Kind.MOVED),
    (re.compile(r"user_script:\d+:|Error running script"), _Kind.DATA),
)

_SUMMARIES: Final = {
    _Kind.READ_ONLY: "the store is a read-only replica: redis_url must lead to the primary",
    _Kind.MOVED: "the store is a node of a Redis Cluster and doesn't hold this key: redis_url must lead to one server",
    _Kind.NO_REPLICAS: "the store refuses writes because too few replicas are connected (min-replicas-to-write)",
    _Kind.PRIMARY_DOWN: "the store is a replica without its primary: redis_url must lead to the primary",
    _Kind.AUTHENTICATION: "the store rejects the user name or password: check both in redis_url",
    _Kind.OUT_OF_MEMORY: "the store is out of memory and refuses writes: raise maxmemory",
    _Kind.NOT_SAVING: "the store can't save to its disk and refuses writes: see the store's log",
    _Kind.LOADING: "the store is loading its data",
    _Kind.BUSY: "the store is busy with a script",
    _Kind.NO_DATABASE: "the store has no database of this number: check the end of redis_url",
    _Kind.TOO_MANY_CLIENTS: "the store has too many connections: raise its maxclients",
    _Kind.UNRESOLVED: "the store's host name can't be resolved: check redis_url",
    _Kind.REFUSED: "nothing accepts connections at the store's address: check redis_url, and whether the store runs",
    _Kind.UNREACHABLE: "the store's address can't be reached: check redis_url and the network",
    _Kind.TIMEOUT: "the store didn't answer in time",
    _Kind.NO_CONNECTION: "all connections to the store are in use",
    _Kind.CLOSED: "the store closed the connection",
    _Kind.PROTOCOL: "the server at redis_url doesn't speak the Redis protocol: with TLS, redis_url begins with rediss://",
    _Kind.SCRIPT_MISSING: "the store has lost a script",
    _Kind.DATA: "the store holds data that can't be read",
    _Kind.OTHER: "the store failed",
}

# An old connection may lead to a demoted primary, a new one to the server that was promoted.
_NOT_PRIMARY: Final = {_Kind.READ_ONLY, _Kind.MOVED, _Kind.NO_REPLICAS, _Kind.PRIMARY_DOWN}
# If one connection has died, others that were idle as long have too.
_DEAD: Final = {_Kind.CLOSED, _Kind.TIMEOUT}
_RECONNECT: Final = _NOT_PRIMARY | _DEAD
_RETRY: Final = _RECONNECT | {_Kind.REFUSED, _Kind.UNREACHABLE, _Kind.NO_CONNECTION, _Kind.SCRIPT_MISSING}

# Arguments may hold passwords and places; a script's digest means nothing to an operator.
_ARGUMENTS = re.compile(r",? ?with args beginning with:.*|,? ?script: (?:[0-9a-f]+, )?on @.*", re.DOTALL)
_COMMAND = re.compile(r"(?i)unknown command [`']([\w|]+)|run the '([\w|]+)'")


def classify(error: BaseException) -> StoreFailure:
    """Returns the failure behind an exception of redis-py or of the system."""
    text = str(error)
    code = getattr(error, "status_code", None) or ""
    detail = _ARGUMENTS.sub("", f"{code} {text}".strip())[:LONGEST_DETAIL].rstrip(" .") or type(error).__name__
    kind = _kind(error, code, text)
    return StoreFailure(kind, _summary(kind, error, text), detail, kind in _RECONNECT, kind in _RETRY)


def _kind(error: BaseException, code: str, text: str) -> StoreErrorKind:
    kind = _BY_CODE.get(code) or _BY_CODE.get(text.partition(" ")[0])
    if kind is not None:
        return kind
    for class_, by_class in _BY_CLASS:
        if isinstance(error, class_):
            return by_class
    for pattern, by_text in _BY_TEXT:
        if found := pattern.search(text):
            return by_text or _BY_CODE[found[1]]
    return _kind_of_connection(error, text)


def _kind_of_connection(error: BaseException, text: str) -> StoreErrorKind:
    causes = _causes(error)
    if any(isinstance(cause, ssl.SSLError | TlsTimeoutError) for cause in causes):
        return _Kind.TLS
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return _Kind.UNRESOLVED
    if any(isinstance(cause, ConnectionRefusedError | FileNotFoundError) for cause in causes):
        return _Kind.REFUSED
    if isinstance(error, exceptions.InvalidResponse) or "Protocol error" in text:
        return _Kind.PROTOCOL
    if "No connection available" in text:
        return _Kind.NO_CONNECTION
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return _Kind.TIMEOUT
    if text.startswith("Error ") and " connecting to " in text:
        return _Kind.UNREACHABLE
    if isinstance(error, exceptions.ConnectionError | OSError):
        return _Kind.CLOSED
    return _Kind.OTHER


def _causes(error: BaseException) -> list[BaseException]:
    """The exception, and those that it was raised from."""
    causes: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in causes:
        causes.append(one)
        one = one.__cause__ or one.__context__
    return causes


def _summary(kind: StoreErrorKind, error: BaseException, text: str) -> str:
    if kind is _Kind.TLS:
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
            return "the store's certificate isn't trusted: see the options of rediss:// in redis_url"
        return "no TLS connection to the store: if its port doesn't speak TLS, redis_url begins with redis://"
    if kind is _Kind.CLOSED and isinstance(error, ClosedOnConnectError):
        return "the server at redis_url closes new connections: does the store run, and does it use TLS (rediss://)?"
    if kind is _Kind.AUTHENTICATION and getattr(error, "status_code", "") == "NOAUTH":
        return "the store requires a password: add it to redis_url"
    if kind in (_Kind.UNKNOWN_COMMAND, _Kind.PERMISSION):
        found = _COMMAND.search(text)
        command = "" if found is None else (found[1] or found[2]).upper()
        if kind is _Kind.UNKNOWN_COMMAND:
            named = f"the command {command}" if command else "a command of Waitroom's scripts (TIME or INFO)"
            return f"the store doesn't have {named}: don't rename or disable it (rename-command)"
        if command:
            return f"the store's user may not run {command}: allow it in the store's ACL"
        if "key" in text:
            return "the store's user may not access Waitroom's keys: allow ~waitroom:* in the store's ACL"
        return "the store's user may not run TIME or INFO in scripts: allow both in the store's ACL"
    return _SUMMARIES[kind]
