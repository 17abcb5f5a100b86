"""The settings of one bypass rule: every key, its type, default, bounds and description; see `settings`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import AfterValidator, ConfigDict, Field

from waitroom.settings import validators
from waitroom.settings.path_patterns import InvalidPatternError, PathPattern
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
            r'Write such as "/orders/[0-9]+/paid". RE2 has neither look-around nor backreferences.',
        ) from None
    if not value.startswith(("/", "(")):
        raise validators.invalid_value(
            'must begin with "/": it has to match the whole path.', rf'Write such as "/.*{value}".'
        )
    return value


def _preset(value: str) -> str:
    """Refuse the name of an unknown preset."""
    if value not in PRESETS:
        meant = closest_match(value.lower(), PRESETS)
        raise validators.invalid_value(
            f'"{value}" is no preset.', f"Did you mean {meant}?" if meant else f"Take one of {', '.join(PRESETS)}."
        )
    return value


@dataclass(frozen=True, slots=True)
class BypassRule:
    """Requests that never wait, such as a payment provider's webhooks; counted and capped all the same."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

    paths: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.path_prefix)], ...],
        About(
            "Prefixes of the paths this rule lets by. A rule needs paths, exact_paths, path_regex or preset. "
            "A request has to meet all of a rule's conditions, and one entry of each list.",
            "Keep them narrow: such a path reaches the shop without waiting, whatever asks for it.",
            example='["/webhooks/"]',
            unset="any path that meets the other conditions",
        ),
    ] = ()
    methods: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.http_method)], ...],
        About(
            "The request methods this rule holds for.",
            "Name them wherever you know them: webhooks are POSTs.",
            example='["POST"]',
            unset="every method",
        ),
    ] = ()
    max_per_second: Annotated[
        StrictFloat,
        Field(gt=0, le=1_000_000),
        About(
            "How many requests a second this rule lets through, over all workers together. Further ones get a 503 with "
            "Retry-After.",
            "Raise it if the provider sends more than that in its busiest second.",
            "requests per second",
        ),
    ] = 50.0
    max_per_second_per_address: Annotated[
        StrictFloat | None,
        Field(gt=0, le=1_000_000),
        About(
            "How many of them may come from one IPv4 address or IPv6 /64 network. Further ones get a 429 with "
            "Retry-After, and take nothing from max_per_second.",
            "Raise it where the provider sends everything from one address.",
            "requests per second",
            example="10",
            unset="a quarter of max_per_second, at least 1",
        ),
    ] = None
    exact_paths: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.path_prefix)], ...],
        About(
            "Whole paths, without their query. Nothing below them matches.",
            "Take it instead of paths wherever the path is fixed.",
            example='["/payment/notify"]',
            unset="no condition",
        ),
    ] = ()
    path_regex: Annotated[
        Annotated[StrictStr, AfterValidator(_path_regex)] | None,
        About(
            "A regular expression in the syntax of RE2 that has to match the whole path, without its query. Paths of "
            "more than 2048 bytes never match.",
            "Take it where a part of the path varies, such as an order's number.",
            example="'/orders/[0-9]+/paid'",
            unset="no condition",
        ),
    ] = None
    addresses: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.trusted_network)], ...],
        About(
            "Addresses or networks of visitors; behind trusted_proxies those that the proxies name.",
            "Name the provider's published addresses where it has some.",
            example='["192.0.2.7", "198.51.100.0/24"]',
            unset="any address",
        ),
    ] = ()
    headers: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.bypass_header)], ...],
        About(
            'Request headers, "Name: value", or "Name" for any value. Values are compared exactly.',
            "Use a secret value for monitoring and load tests; it reaches the shop with the request.",
            example='["X-Monitoring: long-random-secret"]',
            unset="no condition",
            confidential=True,
        ),
    ] = field(default=(), repr=False)
    cookies: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.bypass_pair)], ...],
        About(
            'Cookies, "name=value", or "name" for any value. Values are compared exactly.',
            "Use a secret value for the shop's own staff.",
            example='["staff=long-random-secret"]',
            unset="no condition",
            confidential=True,
        ),
    ] = field(default=(), repr=False)
    query: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.bypass_pair)], ...],
        About(
            'Parameters of the query, "name=value", or "name" for any value, decoded and compared exactly. Other '
            "parameters may stand beside them.",
            "Add a secret value: a name alone can be sent by any visitor, together with what the shop takes for an "
            "order.",
            example='["token=long-random-secret"]',
            unset="no condition",
            confidential=True,
        ),
    ] = field(default=(), repr=False)
    dry_run: Annotated[
        StrictBool,
        About(
            "Whether the rule is a draft: it only counts what it would let by, as the outcome bypass_draft.",
            "Switch it on for a day before a new rule takes effect.",
        ),
    ] = False
    preset: Annotated[
        Annotated[StrictStr, AfterValidator(_preset)] | None,
        About(
            f"A ready-made set of paths, methods and parameters: {', '.join(PRESETS)}. docs/bypass.md lists them.",
            "Take the shop's and the payment provider's, each in a rule of its own.",
            example='"stripe"',
            unset="no condition",
        ),
    ] = None
