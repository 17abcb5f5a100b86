"""Bypass rules in one worker: which requests a rule lets through, and how many of them.

A rule's paths are compared once for each path (`router`), its other conditions on a request's head once for each head,
and only cookies, addresses and budgets with each request.
"""

# mypyc: compile

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from waitroom.budgets import NeighbourhoodBudget, TokenBucket, neighbourhood
from waitroom.edge.http.message import Request
from waitroom.edge.outcomes import RequestOutcome
from waitroom.net.forwarded import TrustedProxies
from waitroom.settings import BypassRule
from waitroom.settings.path_patterns import PathPattern
from waitroom.settings.presets import ANY_BODY, PRESETS, PresetEntry

_SLASH: Final = ord("/")

Pairs = list[tuple[bytes, bytes | None]]


class BypassPaths:
    """The conditions of a rule that depend only on the path.

    Args:
        rule: The rule.
        forms_of: Returns all interpretations of a path in the rule.
    """

    def __init__(self, rule: BypassRule, forms_of: Callable[[str], frozenset[bytes]]) -> None:
        self._prefixes = [(path.encode(), forms_of(path)) for path in rule.paths]
        self._exact = [(path.encode(), forms_of(path)) for path in rule.exact_paths]
        self._pattern = None if rule.path_regex is None else PathPattern(rule.path_regex)
        entries = PRESETS[rule.preset] if rule.preset is not None else ()
        self._preset = [(PathPattern(entry.path), entry) for entry in entries]

    def match(self, path: bytes, interpretations: frozenset[bytes]) -> tuple[PresetEntry, ...] | None:
        """Whether a path meets all of them, as it was sent and in every interpretation.

        Returns:
            The entries of the rule's preset that it fits, empty if the rule has no preset; None if it doesn't fit.
        """
        if self._prefixes and not any(
            path.startswith(raw) and all(any(is_within(form, one) for form in forms) for one in interpretations)
            for raw, forms in self._prefixes
        ):
            return None
        if self._exact and not any(path == raw and interpretations <= forms for raw, forms in self._exact):
            return None
        if self._pattern is not None and not self._pattern.matches(path, interpretations):
            return None
        entries = tuple([entry for pattern, entry in self._preset if pattern.matches(path, interpretations)])
        return None if self._preset and not entries else entries


@dataclass(frozen=True, slots=True)
class Refusal:
    """The response to a request beyond a rule's budgets."""

    status: int
    wait_seconds: float


class Bypass:
    """One rule, with this worker's share of its budgets.

    Args:
        rule: The rule.
        workers: How many workers share its budgets.
    """

    def __init__(self, rule: BypassRule, workers: int) -> None:
        self.dry_run = rule.dry_run
        share = rule.max_per_second / workers
        self.budget = TokenBucket(share, share)
        each = rule.max_per_second_per_address
        each = (max(1.0, rule.max_per_second / 4) if each is None else each) / workers
        self._each = NeighbourhoodBudget(each, each)
        self._methods = frozenset([method.encode() for method in rule.methods])
        self._headers = [_pair(text, ":") for text in rule.headers]
        self._query = [_pair(text, "=") for text in rule.query]
        self._cookies = [_pair(text, "=") for text in rule.cookies]
        self._networks = TrustedProxies(rule.addresses) if rule.addresses else None

    def matches_head(self, request: Request, entries: Sequence[PresetEntry]) -> bool:
        """Whether all requests with a head like this one fit, based on the head.

        Args:
            request: One of them.
            entries: The entries of the rule's preset that the path fits; see `BypassPaths.match`.
        """
        if self._methods and request.method not in self._methods:
            return False
        if self._headers and not _has_any(self._headers, [(field.lower, field.value) for field in request.headers]):
            return False
        query = _query_of(request)
        if self._query and not _has_any(self._query, query):
            return False
        return not entries or any(_matches_entry(entry, request, query) for entry in entries)

    def matches_visitor(self, address: str, cookies: Sequence[bytes]) -> bool:
        """Whether a request fits by its visitor's address and the values of its Cookie headers."""
        if self._networks is not None and address not in self._networks:
            return False
        return not self._cookies or _has_any(self._cookies, _cookies_of(cookies))

    def take(self, address: str, now: float) -> Refusal | None:
        """Takes one request from the budgets at the monotonic time ``now``; None if it may pass."""
        key = neighbourhood(address)
        if not self._each.take(key, now):
            return Refusal(429, self._each.wait_seconds(key, now))
        if not self.budget.take(now):
            return Refusal(503, self.budget.wait_seconds(now))
        return None


class BypassRules:
    """The rules of one room in one worker.

    Args:
        rules: The rules, in the order of the settings.
        workers: How many workers share their budgets.
        count: Counts a request by its outcome.
    """

    def __init__(self, rules: Sequence[BypassRule], workers: int, count: Callable[[RequestOutcome], None]) -> None:
        self.rules = [Bypass(rule, workers) for rule in rules]
        self._count = count

    def matching(self, by_path: Sequence[tuple[int, tuple[PresetEntry, ...]]], request: Request) -> Sequence[Bypass]:
        """The rules for all requests with a head like this one; ``by_path`` are those that the path fits."""
        rules = self.rules
        return [rules[index] for index, entries in by_path if rules[index].matches_head(request, entries)]

    def apply(
        self, rules: Sequence[Bypass], address: str, cookies: Sequence[bytes], now: float
    ) -> Literal["pass", "none"] | Refusal:
        """Applies the first of these rules that matches the visitor too and isn't a dry run.

        Args:
            rules: Those that match the head.
            address: The visitor's address.
            cookies: The values of the Cookie headers.
            now: The steady clock's time in seconds.

        Returns:
            ``pass`` if a rule lets the request pass, ``none`` if there is no such rule, or the refusal of its budget.
        """
        for rule in rules:
            if not rule.matches_visitor(address, cookies):
                continue
            refusal = rule.take(address, now)
            if rule.dry_run:
                self._count("bypass_draft" if refusal is None else "bypass_draft_capped")
            elif refusal is not None:
                self._count("bypass_capped")
                return refusal
            else:
                return "pass"
        return "none"


def is_within(prefix: bytes, path: bytes) -> bool:
    """Whether an interpretation of a path is this prefix or below it."""
    return path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == _SLASH)


def _pair(text: str, between: str) -> tuple[bytes, bytes | None]:
    """A name, and its required value, or None for any."""
    name, found, value = text.partition(between)
    return name.encode(), value.encode() if found else None


def _has_any(wanted: Pairs, given: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether one of the pairs is present. Values may be secrets, so the comparison must not leak partial matches."""
    holds = False
    for name, value in given:
        for wanted_name, wanted_value in wanted:
            if name == wanted_name and (wanted_value is None or hmac.compare_digest(value, wanted_value)):
                holds = True
    return holds


def _query_of(request: Request) -> list[tuple[bytes, bytes]]:
    query = request.target.partition(b"?")[2]
    pairs = [piece.partition(b"=") for piece in query.split(b"&") if piece]
    return [(_decoded(name), _decoded(value)) for name, _, value in pairs]


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _cookies_of(cookies: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    pairs = [piece.partition(b"=") for header in cookies for piece in header.split(b";")]
    return [(name.strip(b" \t"), value.strip(b" \t").strip(b'"')) for name, _, value in pairs]


def _matches_entry(entry: PresetEntry, request: Request, query: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a request matches a preset's entry, and can't mean anything else to the shop."""
    if request.method.decode() not in entry.methods:
        return False
    if entry.query is not None:
        names = [name.decode("latin-1") for name, _ in query]
        # Repeated names, and characters that some parsers treat as another &, are interpreted differently by each shop.
        if b";" in request.target or len(set(names)) < len(names) or any(name not in entry.query for name in names):
            return False
    if not all(_pair(text, "=") in query for text in entry.required):
        return False
    if not request.has_body or entry.body == ANY_BODY:
        return True
    kinds = [field.value for field in request.headers if field.lower == b"content-type"]
    if not entry.body or len(kinds) != 1 or kinds[0].partition(b";")[0].strip().lower() != entry.body.encode():
        return False
    length = request.content_length
    return entry.most_body is None or (length is not None and length <= entry.most_body)
