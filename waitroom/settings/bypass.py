"""The settings of one bypass rule: every key, its type, default, bounds and description; see `settings`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from waitroom.settings import validators
from waitroom.settings.path_patterns import InvalidPatternError, PathPattern, Re2MissingError
from waitroom.settings.presets import PRESETS
from waitroom.settings.schema import CONFIG, About, StrictBool, StrictFloat, StrictStr
from waitroom.settings.sources import closest_match


def _path_regex(value: str) -> str:
    """Refuse a pattern that RE2 rejects or that no path can match."""
    try:
        PathPattern(value)
    except InvalidPatternError as error:
        raise validators.invalid_value(
            f"is not a valid RE2 regular expression: {error}.",
            r'For example: "/orders/[0-9]+/paid". RE2 supports neither look-around nor backreferences.',
        ) from None
    except Re2MissingError:
        raise _re2_missing() from None
    if not value.startswith(("/", "(")):
        raise validators.invalid_value(
            'must begin with "/": the expression has to match the whole path.', rf'For example: "/.*{value}".'
        )
    return value


def _re2_missing() -> PydanticCustomError:
    return validators.invalid_value(
        "needs the package google-re2, which is not installed.", 'Run "pip install google-re2".'
    )


def _preset(value: str) -> str:
    """Refuse the name of an unknown preset, and a preset without RE2, which its paths need."""
    if value not in PRESETS:
        meant = closest_match(value.lower(), PRESETS)
        raise validators.invalid_value(
            f'unknown preset "{value}".', f"Did you mean {meant}?" if meant else f"Choose one of {', '.join(PRESETS)}."
        )
    try:
        PathPattern("/")
    except Re2MissingError:
        raise _re2_missing() from None
    return value


@dataclass(frozen=True, slots=True)
class BypassRule:
    """Requests that never wait, such as a payment provider's webhooks; counted and capped all the same."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

    paths: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.path_prefix)], ...],
        About(
            "Path prefixes that this rule lets through. A rule needs paths, exact_paths, path_regex or preset. A "
            "request must match all conditions of a rule, and one entry of each list.",
            "Keep them narrow: any request to such a path reaches the shop without waiting.",
            example='["/webhooks/"]',
            unset="any path that matches the other conditions",
        ),
    ] = ()
    methods: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.http_method)], ...],
        About(
            "The request methods that this rule applies to.",
            "List them whenever you know them: webhooks use POST.",
            example='["POST"]',
            unset="all methods",
        ),
    ] = ()
    max_per_second: Annotated[
        StrictFloat,
        Field(gt=0, le=1_000_000),
        About(
            "The maximum number of requests per second that this rule lets through, across all workers. Further "
            "requests get a 503 with Retry-After.",
            "Raise it if the provider's peak traffic is higher.",
            "requests per second",
        ),
    ] = 50.0
    max_per_second_per_address: Annotated[
        StrictFloat | None,
        Field(gt=0, le=1_000_000),
        About(
            "The maximum number of these from one IPv4 address or IPv6 /64 network. Further requests get a 429 with "
            "Retry-After and don't count towards max_per_second.",
            "Raise it if the provider sends all requests from one address.",
            "requests per second",
            example="10",
            unset="a quarter of max_per_second, at least 1",
        ),
    ] = None
    exact_paths: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.path_prefix)], ...],
        About(
            "Complete paths, without the query. Paths below them don't match.",
            "Prefer it to paths if the path is fixed.",
            example='["/payment/notify"]',
            unset="no condition",
        ),
    ] = ()
    path_regex: Annotated[
        Annotated[StrictStr, AfterValidator(_path_regex)] | None,
        About(
            "A regular expression in RE2 syntax that must match the whole path, without the query. Paths longer than "
            "2048 bytes never match.",
            "Use it if part of the path varies, such as an order number.",
            example="'/orders/[0-9]+/paid'",
            unset="no condition",
        ),
    ] = None
    addresses: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.trusted_network)], ...],
        About(
            "Addresses or networks of clients; behind trusted_proxies, the client addresses that the proxies report.",
            "List the provider's published addresses if there are any.",
            example='["192.0.2.7", "198.51.100.0/24"]',
            unset="any address",
        ),
    ] = ()
    headers: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.bypass_header)], ...],
        About(
            'Request headers, as "Name: value", or "Name" for any value. Values are compared exactly.',
            "Use a secret value for monitoring and load tests; it is forwarded to the shop.",
            example='["X-Monitoring: long-random-secret"]',
            unset="no condition",
            confidential=True,
        ),
    ] = field(default=(), repr=False)
    cookies: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.bypass_pair)], ...],
        About(
            'Cookies, as "name=value", or "name" for any value. Values are compared exactly.',
            "Use a secret value for the shop's staff.",
            example='["staff=long-random-secret"]',
            unset="no condition",
            confidential=True,
        ),
    ] = field(default=(), repr=False)
    query: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.bypass_pair)], ...],
        About(
            'Query parameters, as "name=value", or "name" for any value, decoded and compared exactly. Other '
            "parameters are allowed.",
            "Include a secret value: any visitor can send a parameter name, even together with a request that the "
            "shop accepts as an order.",
            example='["token=long-random-secret"]',
            unset="no condition",
            confidential=True,
        ),
    ] = field(default=(), repr=False)
    dry_run: Annotated[
        StrictBool,
        About(
            "Whether the rule is a draft: it only counts the requests that it would let through, with the outcome "
            "bypass_draft.",
            "Turn it on for a day before a new rule takes effect.",
        ),
    ] = False
    preset: Annotated[
        Annotated[StrictStr, AfterValidator(_preset)] | None,
        About(
            f"A predefined set of paths, methods and parameters: {', '.join(PRESETS)}. docs/bypass.md lists them.",
            "Use the presets of the shop and of the payment provider, each in its own rule.",
            example='"stripe"',
            unset="no condition",
        ),
    ] = None
