"""The facts that are judged: as observed, without an opinion."""

from __future__ import annotations

from dataclasses import dataclass, field

from waitroom.control.monitoring.gateways import ClockReading


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """The store.

    Attributes:
        embedded: Whether it is the gateway's own.
        failure: Why it can't be reached, a clause; empty if it can.
        refused: Needs of the gateway that it refuses, each a clause.
        info: Its ``INFO``, empty if that isn't allowed.
        config: The reply of ``CONFIG GET`` for the values that matter; empty if that isn't allowed.
        round_trip_seconds: The median of several calls; None if unknown.
        clock: Its clock compared with this machine's; None if unknown.
        strangers: The machines of live gateways with other secrets.
    """

    embedded: bool
    failure: str = ""
    refused: tuple[str, ...] = ()
    info: dict[str, str] = field(default_factory=dict)
    config: dict[str, str] = field(default_factory=dict)
    round_trip_seconds: float | None = None
    clock: ClockReading | None = None
    strangers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayFacts:
    """The gateway of the settings, which may be running.

    Attributes:
        admin: Whether its admin listener responds.
        serving: Whether its public listener responds.
        hints: The hints on its rooms, as (room, hint); empty if they may not be read.
    """

    admin: bool
    serving: bool
    hints: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class UpstreamFacts:
    """One address of a shop.

    Attributes:
        room: The room's name.
        address: As in the settings.
        path: The path of the request.
        failure: Why it doesn't answer, a clause; empty if it does.
        status: The status of its answer; 0 without one.
        seconds: The time to the head of the answer.
    """

    room: str
    address: str
    path: str
    failure: str = ""
    status: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Files and limits of this machine.

    Attributes:
        modes: The permission bits of private files and directories, by path; missing ones are left out.
        free_bytes: The free space of ``data_dir``; None if unknown.
        open_files: The hard limit of open files; None if there is none.
        has_accounts: Whether ``data_dir`` holds users or tokens of the admin listener.
    """

    modes: dict[str, int] = field(default_factory=dict)
    free_bytes: int | None = None
    open_files: int | None = None
    has_accounts: bool = False
