"""The kinds of failures of the store, by the words of Redis 6.2, Redis 7, Valkey and redis-py."""

from __future__ import annotations

import socket
import ssl

import pytest
from redis import exceptions
from redis._parsers.base import BaseParser

from waitroom.store.errors import LONGEST_DETAIL, ClosedOnConnectError, StoreErrorKind, TlsTimeoutError, classify


def reply(text: str) -> Exception:
    """The exception that redis-py makes of an error reply."""
    error: Exception = BaseParser.parse_error(text)
    return error


def connecting(cause: OSError) -> Exception:
    """The exception that redis-py makes of a failure to connect."""
    error = exceptions.ConnectionError(f"Error {cause.errno} connecting to store:6379. {cause.strerror}.")
    error.__cause__ = cause
    return error


REPLIES = [
    ("READONLY You can't write against a read only replica.", "read_only", "primary"),
    (
        "ERR Error running script (call to f_0a): @user_script:9: @user_script: 9: "
        "-READONLY You can't write against a read only replica.",
        "read_only",
        "primary",
    ),
    ("MOVED 3999 127.0.0.1:6381", "moved", "Cluster"),
    ("CLUSTERDOWN Hash slot not served", "moved", "Cluster"),
    ("NOREPLICAS Not enough good replicas to write.", "no_replicas", "min-replicas-to-write"),
    ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "primary_down", "primary"),
    ("NOAUTH Authentication required.", "authentication", "password"),
    ("WRONGPASS invalid username-password pair or user is disabled.", "authentication", "redis_url"),
    ("NOPERM this user has no permissions to run the 'evalsha' command", "permission", "EVALSHA"),
    ("NOPERM No permissions to access a key", "permission", "~waitroom:*"),
    (
        "ERR ACL failure in script: User app has no permissions to run the 'info' command script: on @user_script:5.",
        "permission",
        "may not run INFO",
    ),
    ("The user executing the script can't run this command or subcommand script: 0a, on @user_script:5.",
     "permission", "TIME or INFO"),
    ("unknown command `EVALSHA`, with args beginning with: `34ac`, `17`, ", "unknown_command", "EVALSHA"),
    ("Unknown Redis command called from script script: 0a, on @user_script:52.", "unknown_command", "INFO"),
    ("Unknown command called from script script: on @user_script:52.", "unknown_command", "INFO"),
    ("OOM command not allowed when used memory > 'maxmemory'.", "out_of_memory", "maxmemory"),
    ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist", "not_saving", "disk"),
    ("LOADING Redis is loading the dataset in memory", "loading", "loading"),
    ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", "busy", "script"),
    ("DB index is out of range", "no_database", "redis_url"),
    ("max number of clients reached", "too_many_clients", "maxclients"),
    ("NOSCRIPT No matching script. Please use EVAL.", "script_missing", "script"),
    ("WRONGTYPE Operation against a key holding the wrong kind of value script: on @user_script:63.", "data", "data"),
    ("user_script:75: attempt to perform arithmetic on field 'rate' (a nil value)", "data", "data"),
    ("ERR something else", "other", "failed"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "named"), REPLIES)
def test_kinds_of_error_replies(text, kind, named):
    failure = classify(reply(text))
    assert failure.kind == kind
    assert named in failure.summary
    assert "user_script:52" not in failure.detail


@pytest.mark.parametrize(("text", "kind", "named"), REPLIES)
def test_kinds_without_the_code_as_older_libraries_report_them(text, kind, named):
    error = reply(text)
    error.status_code = None
    assert classify(error).kind == kind


CONNECTIONS = [
    (connecting(ConnectionRefusedError(111, "Connection refused")), "refused", "address"),
    (connecting(FileNotFoundError(2, "No such file or directory")), "refused", "address"),
    (connecting(socket.gaierror(-2, "Name or service not known")), "unresolved", "host name"),
    (connecting(OSError(113, "No route to host")), "unreachable", "network"),
    (connecting(ssl.SSLCertVerificationError(1, "self-signed certificate")), "tls", "certificate"),
    (connecting(ssl.SSLError(1, "WRONG_VERSION_NUMBER")), "tls", "redis://"),
    (TlsTimeoutError("Timeout connecting to server"), "tls", "redis://"),
    (exceptions.AuthenticationError("invalid password"), "authentication", "password"),
    (exceptions.InvalidResponse("Protocol Error: b'\\x15'"), "protocol", "rediss://"),
    (exceptions.TimeoutError("Timeout reading from store:6379"), "timeout", "in time"),
    (TimeoutError(), "timeout", "in time"),
    (exceptions.ConnectionError("Connection closed by server."), "closed", "closed"),
    (ClosedOnConnectError("Connection closed by server."), "closed", "rediss://"),
    (ConnectionResetError(104, "Connection reset by peer"), "closed", "closed"),
    (exceptions.ConnectionError("No connection available."), "no_connection", "in use"),
]


@pytest.mark.parametrize(("error", "kind", "named"), CONNECTIONS)
def test_kinds_of_connection_failures(error, kind, named):
    failure = classify(error)
    assert failure.kind == kind
    assert named in failure.summary
    assert failure.detail


def test_connections_are_dropped_where_another_may_lead_to_the_primary_or_be_alive():
    dropped = {classify(reply(text)).kind for text, _, _ in REPLIES if classify(reply(text)).reconnect}
    dropped |= {classify(error).kind for error, _, _ in CONNECTIONS if classify(error).reconnect}
    assert dropped == {"read_only", "moved", "no_replicas", "primary_down", "timeout", "closed"}


def test_calls_that_cannot_succeed_are_not_repeated():
    hopeless = {"authentication", "permission", "unknown_command", "out_of_memory", "not_saving", "loading", "busy"}
    assert not hopeless & {classify(reply(text)).kind for text, _, _ in REPLIES if classify(reply(text)).retry}


def test_arguments_of_commands_are_left_out():
    failure = classify(reply("unknown command `AUTH`, with args beginning with: `app` `the password` "))
    assert failure.kind is StoreErrorKind.UNKNOWN_COMMAND
    assert "AUTH" in failure.detail
    assert "password" not in failure.detail


def test_details_are_bounded():
    assert len(classify(reply("ERR " + "x" * 10_000)).detail) <= LONGEST_DETAIL
