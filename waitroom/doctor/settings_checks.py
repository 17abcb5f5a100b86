"""Settings that are legal and unwise. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from ipaddress import ip_network
from typing import Final
from urllib.parse import urlsplit

from waitroom.doctor.findings import Finding
from waitroom.net.authority import is_loopback
from waitroom.settings import BypassRule, EventSettings, RoomSettings, Settings
from waitroom.settings.schema import plain_number
from waitroom.settings.store_url import has_password, options_of
from waitroom.settings.validators import split_address

MIN_DISTINCT: Final = 8  # characters of a secret; 16 random hexadecimal digits have 8 or more in 99 of 100 cases
_KNOWN: Final = ("password", "changeme", "change-me", "secret", "waitroom", "example", "1234567890", "qwerty")
WIDEST_IPV4, WIDEST_IPV6 = 8, 16
MIN_PREQUEUE_SECONDS: Final = 60
HIDDEN_TAB_SECONDS: Final = 75  # a browser gives a hidden tab one timer a minute


def check_settings(settings: Settings, *, has_accounts: bool, now: datetime) -> Iterator[Finding]:
    """Judges the settings.

    Args:
        settings: Valid settings.
        has_accounts: Whether the admin listener has users or tokens besides those in the settings.
        now: The time.
    """
    yield from _check_secrets(settings)
    yield from _check_listeners(settings, has_accounts)
    yield from _check_store_url(settings)
    yield from _check_proxies(settings)
    for room in settings.rooms:
        yield from _check_room(room)
        for event in room.events:
            yield from _check_event(room, event, now)


def is_weak(secret: str) -> bool:
    """Whether a secret can be guessed: few characters, a repetition, or a known word and little else."""
    if len(set(secret)) < MIN_DISTINCT or secret in (secret + secret)[1:-1]:
        return True
    rest = secret.lower()
    for word in _KNOWN:
        rest = rest.replace(word, "")
    return len(rest) < MIN_DISTINCT


def _check_secrets(settings: Settings) -> Iterator[Finding]:
    weak = [number for number, secret in enumerate(settings.secrets, 1) if is_weak(secret)]
    if weak:
        named = ", ".join(map(str, weak))
        yield Finding(
            "weak-secret",
            "warning",
            f"A secret can be guessed (number {named} of secrets): whoever does can sign places and passes.",
            "Generate one with `waitroom secret`, put it first, and remove the weak one once its sessions have ended.",
        )
    if settings.redis_url is not None and not settings.secrets:
        yield Finding(
            "secrets-not-set",
            "warning",
            "redis_url is set without secrets: each gateway generates its own, so visitors lose their places between "
            "gateways.",
            "Generate one with `waitroom secret`, and give all gateways the same secrets.",
        )


def _check_listeners(settings: Settings, has_accounts: bool) -> Iterator[Finding]:
    if not _is_local(settings.admin_listen):
        if not settings.users and not has_accounts:
            yield Finding(
                "admin-without-users",
                "warning",
                f"admin_listen is {settings.admin_listen}, but there are no users: other machines can reach it, and "
                "proxies on this machine count as local.",
                "Add a user with `waitroom user add NAME --role operator`, or listen on 127.0.0.1.",
            )
        yield Finding(
            "admin-without-tls",
            "note",
            f"admin_listen is {settings.admin_listen}, which doesn't speak TLS: passwords cross the network readable.",
            "Put a proxy with TLS in front, or keep the port to a private network.",
        )


def _check_store_url(settings: Settings) -> Iterator[Finding]:
    if settings.redis_url is None:
        return
    url = urlsplit(settings.redis_url)
    options = options_of(settings.redis_url)
    if url.scheme != "unix" and not is_loopback(url.hostname or ""):
        if not has_password(settings.redis_url):
            yield Finding(
                "redis-without-password",
                "warning",
                "redis_url leads to another machine without a password: whoever reaches it can change the queue.",
                "Set a password in the store (requirepass or an ACL), and write it into redis_url.",
            )
        if url.scheme == "redis":
            yield Finding(
                "redis-without-tls",
                "note",
                "redis_url leads to another machine without TLS: passwords and places cross the network readable.",
                "Use rediss://, or keep the connection to a private network.",
            )
    if options.get("ssl_cert_reqs") == "none" or options.get("ssl_check_hostname") == "false":
        yield Finding(
            "redis-tls-unverified",
            "warning",
            "The store's certificate isn't verified, so another machine can pretend to be the store.",
            "Name the store's CA in ssl_ca_certs, and remove ssl_cert_reqs and ssl_check_hostname from redis_url.",
        )


def _check_proxies(settings: Settings) -> Iterator[Finding]:
    wide = [one for one in settings.trusted_proxies if _is_wide(one)]
    if wide:
        yield Finding(
            "trusted-proxies-wide",
            "warning",
            f"trusted_proxies contains {', '.join(wide)}, and with it visitors: each can claim any address.",
            "List only the addresses or networks of your proxies.",
        )
    if not settings.trusted_proxies and _is_local(settings.listen):
        yield Finding(
            "trusted-proxies-missing",
            "warning",
            f"listen is {settings.listen}, so a proxy must be in front, but trusted_proxies is empty: all visitors "
            "share one address and its limits.",
            'Set trusted_proxies = ["127.0.0.1"], or the address from which your proxy connects.',
        )


def _check_room(room: RoomSettings) -> Iterator[Finding]:
    where = f'Room "{room.name}"'
    if room.shop_secret is not None and is_weak(room.shop_secret):
        yield Finding(
            "weak-shop-secret",
            "warning",
            f"{where} has a shop_secret that can be guessed: whoever does can send the shop requests that bypass the "
            "gateway.",
            "Generate one with `waitroom secret`, and replace it as docs/shop.md describes.",
        )
    for number, rule in enumerate(room.bypass, 1):
        yield from _check_bypass(where, number, rule)
    if room.without_pass == "all":  # noqa: S105 - a setting's value
        yield Finding(
            "without-pass-all",
            "warning",
            f'{where} has without_pass = "all": while nobody waits, orders reach the shop without a pass.',
            'Use "safe", and add bypass rules for webhooks.',
        )
    if room.on_store_error == "admit":
        yield Finding(
            "on-store-error-admit",
            "note",
            f'{where} has on_store_error = "admit": while the store is away, max_active is not checked.',
            'Keep it if an overshoot is better than a closed shop; otherwise use "hold".',
        )
    if room.method == "reject":
        yield Finding(
            "method-reject",
            "note",
            f'{where} has method = "reject": it stays closed, also if an operator opens it.',
            'Keep it until the shop may be visited; then use "fifo".',
        )
    if room.claim_seconds > room.session_seconds:
        yield Finding(
            "claim-longer-than-session",
            "warning",
            f"{where}: a slot is reserved for claim_seconds ({room.claim_seconds}) for a visitor who may not come, "
            f"longer than session_seconds ({room.session_seconds}) for one who shops.",
            "Lower claim_seconds, or raise session_seconds.",
        )
    if room.session_max_seconds < 2 * room.session_seconds:
        yield Finding(
            "session-hardly-slides",
            "note",
            f"{where}: session_max_seconds ({room.session_max_seconds}) ends active sessions after less than two "
            f"session_seconds ({room.session_seconds}).",
            "Raise session_max_seconds, unless everybody is to have the same short time.",
        )
    if room.away_after_seconds < HIDDEN_TAB_SECONDS:
        yield Finding(
            "away-too-soon",
            "warning",
            f"{where}: away_after_seconds is {room.away_after_seconds}, but a hidden tab polls once a minute.",
            f"Use {HIDDEN_TAB_SECONDS} or more; 180 is the default.",
        )


def _check_event(room: RoomSettings, event: EventSettings, now: datetime) -> Iterator[Finding]:
    where = f'Room "{room.name}", event "{event.name}"'
    if event.end is not None and event.end <= now:
        yield Finding(
            "event-over",
            "note",
            f"{where} ended on {event.end:%Y-%m-%d}.",
            "Check the year, or remove the event: its report doesn't depend on the file.",
        )
    if event.prequeue_start is not None:
        yield from _check_prequeue(where, event, event.prequeue_start)
    if event.units is None:
        yield Finding(
            "event-without-units",
            "note",
            f"{where} has no units: unless the shop reports its stock, nobody sees how much is left.",
            "Set units, and report the stock as docs/shop.md describes.",
        )
    yield from _check_event_rate(room, event, where)


def _check_prequeue(where: str, event: EventSettings, opens: datetime) -> Iterator[Finding]:
    seconds = (event.start - opens).total_seconds()
    if seconds < MIN_PREQUEUE_SECONDS:
        yield Finding(
            "event-prequeue-short",
            "warning",
            f"{where} opens its prequeue {seconds:g} s before the start: most visitors come after it.",
            "Open it 15 to 60 minutes before the start.",
        )
    if event.before == "open" and event.method == "random":
        yield Finding(
            "event-open-before-shuffle",
            "warning",
            f'{where} has before = "open" and method = "random": visitors who join before the prequeue opens and '
            "still wait then are ahead of everybody in it.",
            'Use before = "closed", unless the room sells something else before.',
        )


def _check_event_rate(room: RoomSettings, event: EventSettings, where: str) -> Iterator[Finding]:
    """Finds an event that ends before as many visitors can be admitted as there are units."""
    by_autopilot = event.autopilot or (event.autopilot is None and event.rate_per_minute is None and room.autopilot)
    if event.end is None or event.units is None or by_autopilot:
        return
    rate = room.rate_per_minute if event.rate_per_minute is None else event.rate_per_minute
    admitted = rate * (event.end - event.start).total_seconds() / 60
    if admitted < event.units:
        yield Finding(
            "event-rate-below-units",
            "warning",
            f"{where} admits at most {admitted:,.0f} visitors ({plain_number(rate)} per minute until its end), fewer "
            f"than its {event.units:,} units.",
            "Raise rate_per_minute of the event, or end it later.",
        )


def _check_bypass(where: str, number: int, rule: BypassRule) -> Iterator[Finding]:
    named = f"{where}, bypass rule {number}"
    everything = "/" in rule.paths or rule.path_regex in (".*", "^.*$", "/.*", "^/.*$", "^/.*")
    narrowed = rule.addresses or rule.headers or rule.cookies or rule.query
    if everything and not narrowed and not rule.dry_run:
        yield Finding(
            "bypass-everything",
            "warning",
            f"{named} matches every path for everybody: up to {rule.max_per_second:g} requests per second reach the "
            "shop without waiting.",
            "Name the paths of your webhooks, or the addresses that send them.",
        )
    elif _depends_on_presence(rule):
        yield Finding(
            "bypass-guessable",
            "note",
            f"{named} depends on the mere presence of a cookie or a query parameter, which any visitor can send.",
            "Add a secret value, or list addresses.",
        )


def _depends_on_presence(rule: BypassRule) -> bool:
    """Whether a rule asks for nothing that a visitor doesn't know but the name of a cookie or query parameter."""
    named = (*rule.cookies, *rule.query)
    return bool(named) and not any("=" in name for name in named) and not rule.addresses and not rule.headers


def _is_local(listen: str) -> bool:
    """Whether only this machine can reach a listener."""
    address = split_address(listen)
    return address is not None and is_loopback(address.host)


def _is_wide(network: str) -> bool:
    parsed = ip_network(network)
    return parsed.prefixlen < (WIDEST_IPV4 if parsed.version == 4 else WIDEST_IPV6)
