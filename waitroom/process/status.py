"""The state of all child processes, for the service manager. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def describe(names: Iterable[str], ready: Collection[str], stuck: Collection[str]) -> str:
    """Returns a line for ``systemctl status``.

    Args:
        names: All children: ``edge N``, ``control`` and, if it is embedded, ``store``.
        ready: Those that are ready.
        stuck: Those that show no sign of life.
    """
    names = list(names)
    serving = [name for name in ready if name not in stuck]
    workers = [name for name in names if _role(name) == "edge"]
    parts = [f"{sum(name in serving for name in workers)} of {len(workers)} workers serving"]
    parts += [f"{name} starting" for name in names if name not in workers and name not in ready]
    parts += [f"{name} stuck" for name in names if name in stuck]
    return ", ".join(parts)


def has_stuck_role(names: Iterable[str], stuck: Collection[str]) -> bool:
    """Whether all processes of a role are stuck: then only a restart of the whole gateway can help.

    Processes that are starting don't count. A restart wouldn't help these, and would cut the others' connections.
    """
    roles: dict[str, bool] = {}
    for name in names:
        roles[_role(name)] = roles.get(_role(name), True) and name in stuck
    return any(roles.values())


def _role(name: str) -> str:
    return name.partition(" ")[0]
