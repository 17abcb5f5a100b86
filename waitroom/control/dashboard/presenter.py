"""The status of a room in the words and figures of the dashboard.

The served page and the live feed both use these functions, so that the texts have one source.
Everything is a pure function of the room as the API describes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from waitroom.control.dashboard.event_presenter import current_event_texts
from waitroom.control.dashboard.formatting import (
    NOTHING,
    count,
    latency,
    percent,
    rate,
    share,
    time_of_day,
    visitors,
)
from waitroom.control.monitoring.thresholds import NOTICE
from waitroom.metrics.upstream_window import STATS_SECONDS
from waitroom.queue.fields import OPERATOR_NUMBERS
from waitroom.wait_range import short_wait

_STATES = {
    "open": ("Open", "good"),
    "prequeue": ("Prequeue", "notice"),
    "paused": ("Paused", "notice"),
    "draining": ("Draining", "notice"),
    "closed": ("Closed", "quiet"),
    "sold_out": ("Sold out", "quiet"),
    "unknown": ("Unknown", "bad"),
}
_LEAVE_REASONS = {
    "left": "left the queue",
    "away": "away too long",
    "missed": "missed their turn",
    "released": "finished",
    "expired": "session expired",
    "ended": "ended by an operator",
}
_FIELD_NAMES = {field.name: field.label.lower() for field in OPERATOR_NUMBERS}
# The available actions, by the room's state.
_ACTIONS = {
    "open": ["pause", "drain", "close", "sold_out"],
    "paused": ["resume", "drain", "close", "sold_out"],
    "draining": ["resume", "close", "sold_out"],
    "closed": ["open", "sold_out"],
    "sold_out": ["open", "close"],
}


def room_texts(room: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the texts of a room by their names on the page.

    ``tone`` is good, notice, bad or quiet; ``needs`` are problems that need attention, ``hints`` suggest changes,
    ``actions`` are the available actions, and ``asks`` their confirmation texts.

    Args:
        room: In the API's format; without ``state`` if the store was never reached.
    """
    if "state" not in room:
        state, tone = _STATES["unknown"]
        return {
            "state": state,
            "tone": tone,
            "says": "No figures yet: the store has not responded.",
            "needs": _alerts(room),
            "hints": [],
            **current_event_texts(room),
        }
    key = "draining" if room.get("draining") else room["state"]
    state, tone = _STATES[key]
    shop = room.get("shop") or {}
    workers = room.get("workers") or {}
    wait = (room.get("wait_seconds") or {}).get("newcomer")
    change, autopilot = room.get("last_change"), room.get("autopilot")
    admitted = room.get("admitted_per_minute")
    return {
        "state": state,
        "tone": tone,
        "says": summary(room),
        "needs": _alerts(room),
        "hints": list(room.get("hints", ())),
        "waiting": count(room["waiting"]),
        "called": count(room["called"]),
        "away": count(room["away"]),
        "active": count(room["active"]),
        "limit": count(room["max_active"]),
        "active_share": share(room["active"], room["max_active"]),
        "inside": f"{count(room['active'])} of {count(room['max_active'])}",
        "rate": rate(room["rate_per_minute"]),
        "admitted": NOTHING if admitted is None else rate(admitted),
        "admitted_share": share(admitted or 0, room["rate_per_minute"]),
        "joined": rate(room.get("joined_per_minute")),
        "newcomer": wait_text(wait, room),
        "left": departures(room.get("left_per_minute") or {}),
        "remaining": stock_text(room),
        "total_joined": count(room["totals"].get("joined", 0)),
        "total_admitted": count(room["totals"].get("admitted", 0)),
        "message": room.get("message") or "",
        "p50": latency(shop.get("p50_seconds")),
        "p95": latency(shop.get("p95_seconds")),
        "requests": rate(shop.get("requests_per_minute")),
        "failures": failures(shop),
        "in_flight": NOTHING if shop.get("in_flight") is None else count(shop["in_flight"]),
        "store": "up" if room["store_up"] else "unavailable",
        "workers": f"{workers['alive']} of {workers['wanted']} alive" if workers else NOTHING,
        "pilot": _autopilot(autopilot),
        "change": change_text(change) if change else "No changes yet.",
        "change_who": change["who"] if change else "",
        "change_at": change["at"] if change else "",
        "change_clock": time_of_day(change["at"]) if change else "",
        "undoable": room.get("undo") is not None,
        "actions": _ACTIONS[_own_state(room)],
        "asks": confirmations(room),
        **current_event_texts(room),
    }


def _own_state(room: Mapping[str, Any]) -> str:
    """Returns the state that operators change; the current event may close the room or open its prequeue instead."""
    if room.get("draining"):
        return "draining"
    own: str = room.get("own_state", room["state"])
    return "open" if own == "prequeue" else own


def summary(room: Mapping[str, Any]) -> str:
    """Returns one sentence on what happens in the room now."""
    waiting, pace = _waiting(room["waiting"]), f"{rate(room['rate_per_minute'])} per minute"
    if room.get("draining"):
        return f"No admissions. {visitors(room['active'])} in the shop may finish; {waiting}."
    if room["state"] == "paused":
        return f"No admissions; everyone keeps their place. {waiting.capitalize()}."
    if room["state"] == "prequeue":
        return f"Visitors join the prequeue; nobody is admitted before the start. {waiting.capitalize()}."
    if room["state"] == "closed" and room.get("own_state", "closed") != "closed":
        return "Closed by the schedule: visitors are told when it opens."
    if room["state"] == "closed":
        reason = ": the room's method is reject" if room.get("method") == "reject" else ""
        return f"Visitors are told that it is closed{reason}. {visitors(room['active'])} in the shop may finish."
    if room["state"] == "sold_out":
        return f"Visitors are told that it is sold out. {visitors(room['active'])} in the shop may finish."
    if room.get("method") == "passthrough":
        return f"The queue is off: visitors are admitted immediately.{_over_limits(room.get('over_limit'))}"
    if not room["waiting"]:
        return f"No queue: visitors are admitted immediately, up to {pace}."
    if room["active"] + room["called"] >= room["max_active"]:
        return f"Full: the next visitor is admitted when one leaves. {waiting.capitalize()}."
    return f"{waiting.capitalize()}; up to {pace} are admitted."


def _opening(room: Mapping[str, Any], waiting: str) -> str:
    if room.get("method") == "reject":
        return "Nothing changes for visitors: the room's method is reject, so it stays closed."
    pace = rate(room["rate_per_minute"])
    return f"The queue opens again: {waiting} in the queue are called at {pace} per minute, and newcomers are accepted."


def _over_limits(over: Mapping[str, Any] | None) -> str:
    """Says what the limits of a passthrough room would do."""
    if not over:
        return ""
    by_rate, by_max_active = (rate(over[limit]["per_minute"] or 0) for limit in ("rate", "max_active"))
    return f" Visitors that would have waited in the last minute: {by_rate} by the rate, {by_max_active} by max active."


def confirmations(room: Mapping[str, Any]) -> dict[str, str]:
    """Returns the confirmation text of each action: its effect, and on how many visitors."""
    waiting, inside, called = visitors(room["waiting"]), visitors(room["active"]), room["called"]
    turn = f" {visitors(called)} already called may still enter." if called else ""
    late = f" {visitors(called)} already called can't enter any more." if called else ""
    over = f", and newcomers are refused.{late} {inside} in the shop may finish."
    undo = room.get("undo")
    return {
        "pause": f"No visitors are called until you resume. {waiting} in the queue keep their places and are told that "
        f"it is paused.{turn} {inside} in the shop are not affected.",
        "drain": f"No visitors are called, and the room empties: {inside} in the shop may finish, and nobody is "
        f"removed. {waiting} in the queue keep their places and are told that it is paused.{turn}",
        "close": f"{waiting} in the queue are told that it is closed{over}",
        "sold_out": f"{waiting} in the queue are told that it is sold out{over}",
        "open": _opening(room, waiting),
        "undo": _undo(undo, room["last_change"]) if undo else "There is nothing to undo.",
    }


def _undo(undo: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    change = f"{change_text(undo)} ({undo['who']}, {time_of_day(undo['at'])})"
    if last["undoable"]:
        return f"This reverts the last change: {change}."
    return f"This reverts the last change by an operator: {change}. Later changes are kept."


def _alerts(room: Mapping[str, Any]) -> list[str]:
    found = []
    if not room["store_up"]:
        found.append("Store unavailable: no admissions; everyone keeps their place.")
        if problem := room.get("store_problem", ""):
            found.append(f"{problem[:1].upper()}{problem[1:]}.")
    recovery = room.get("recovery")
    if recovery:
        found.append(_recovery(recovery))
    workers = room.get("workers") or {}
    if workers and workers["alive"] < workers["wanted"]:
        found.append(f"Only {workers['alive']} of {workers['wanted']} workers are alive.")
    shop = room.get("shop") or {}
    if shop_is_failing(shop):
        answers, failed = _answers(shop) or 0, shop["failures_per_minute"]
        found.append(f"The shop is failing: error rate {percent(failed, answers)} over the last ten seconds.")
    if room.get("active", 0) + room.get("called", 0) > room.get("max_active", 0):
        found.append("Active sessions exceed max active. Nobody is removed; the number falls as visitors leave.")
    return found


def shop_is_failing(shop: Mapping[str, Any]) -> bool:
    """Whether the shop fails so often that operators must know."""
    answers, failed = _answers(shop) or 0, shop.get("failures_per_minute") or 0
    return NOTICE.reached(answers * STATS_SECONDS / 60, failed * STATS_SECONDS / 60)


def _recovery(recovery: Mapping[str, Any]) -> str:
    waiting = recovery["waiting"]
    known = "" if waiting["expected"] is None else f" of {count(waiting['expected'])}"
    seconds = max(1, round(recovery["seconds_left"]))
    return (
        f"The store lost data: {count(waiting['reported'])}{known} waiting visitors have reported. "
        f"Calls resume within {seconds} s; everyone keeps their place."
    )


def _autopilot(autopilot: Mapping[str, Any] | None) -> str:
    if autopilot is None:
        return ""
    if not autopilot["on"]:
        return "Off: the rate stays as you set it."
    limits = f"{rate(autopilot['floor'])} and {rate(autopilot['ceiling'])}"
    decision: str = autopilot["summary"]
    return decision or f"On: keeps the rate between {limits} per minute."


def _waiting(number: int) -> str:
    return f"{visitors(number)} waiting" if number else "no visitors waiting"


def failures(shop: Mapping[str, Any]) -> str:
    """Returns the share of answers that failed, and the number per minute."""
    answers, failed = _answers(shop), shop.get("failures_per_minute")
    if answers is None or failed is None:
        return NOTHING
    return f"{percent(failed, answers)}" if not failed else f"{percent(failed, answers)} ({rate(failed)}/min)"


def _answers(shop: Mapping[str, Any]) -> float | None:
    """Returns the answers per minute: requests that the shop completed, without those whose visitor gave up."""
    asked: float | None = shop.get("requests_per_minute")
    return None if asked is None else asked - (shop.get("given_up_per_minute") or 0)


def stock_text(room: Mapping[str, Any]) -> str:
    """Formats the units left, such as ``1,200 of 5,000 (714 sold/min)``."""
    if room.get("remaining") is None:
        return NOTHING
    stock = room.get("stock") or {}
    units, pace = stock.get("units"), stock.get("sold_per_minute")
    text = count(room["remaining"]) if units is None else f"{count(room['remaining'])} of {count(units)}"
    return text if pace is None else f"{text} ({rate(pace)} sold/min)"


def wait_text(wait: Sequence[float] | None, room: Mapping[str, Any]) -> str:
    """Formats the wait of a visitor who joins now."""
    if room["state"] in ("closed", "sold_out", "prequeue") or room.get("draining"):
        return NOTHING
    if room["state"] == "paused":
        return "paused"
    if not room["waiting"] and room["active"] + room["called"] < room["max_active"]:
        return "none"
    if wait is None:
        return "unknown"
    low, high = wait
    return short_wait(low, high)


def departures(left: Mapping[str, float | None]) -> list[list[str]]:
    """Returns pairs of a reason in words and the rate per minute, highest first."""
    pairs = sorted(
        ((reason, number) for reason, number in left.items() if number), key=lambda pair: (-pair[1], pair[0])
    )
    return [[_LEAVE_REASONS.get(reason, reason.replace("_", " ")), rate(number)] for reason, number in pairs]


def change_text(change: Mapping[str, Any]) -> str:
    """Describes a change in the page's words."""
    text: str = change["what"]
    for key, name in _FIELD_NAMES.items():
        text = text.replace(key, name)
    return text[:1].upper() + text[1:]
