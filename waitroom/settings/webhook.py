"""The settings of one webhook: every key, its type, default and description; see `settings`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import AfterValidator, ConfigDict

from waitroom.settings import validators as values
from waitroom.settings.room import CONFIG, Text
from waitroom.settings.schema import About


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of events: its address, and the events that it receives."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

    url: Annotated[
        Text,
        AfterValidator(values.webhook_url),
        About(
            "Where events are sent, each as a POST of JSON: http:// or https://, without user or password. It may hold "
            "a secret path, so that no log shows more of it than its host. docs/webhooks.md says what is sent.",
            "Set it to what wakes the people on duty, or writes into their chat.",
            example='"https://hooks.example.com/waitroom"',
            confidential=True,
        ),
    ] = field(repr=False)
    events: Annotated[
        tuple[Annotated[Text, AfterValidator(values.webhook_event)], ...],
        About(
            f"Which events are sent: {', '.join(values.WEBHOOK_EVENTS)}.",
            "Name a few where the receiver wakes somebody.",
            example='["shop_failing", "store_lost"]',
            unset="every event",
        ),
    ] = ()
    rooms: Annotated[
        tuple[Annotated[Text, AfterValidator(values.room_name)], ...],
        About(
            "The rooms whose events are sent, by their names.",
            "Set it where each shop has people of its own.",
            example='["shop"]',
            unset="every room",
        ),
    ] = ()
    secret: Annotated[
        Annotated[Text, AfterValidator(values.signing_secret)] | None,
        About(
            "What events are signed with, so that the receiver knows whom they are from: at least "
            f"{values.SECRET_LENGTH} characters; the command `waitroom secret` makes one.",
            "Set it wherever the receiver is yours; give it to nobody else.",
            example='"..."',
            unset="events aren't signed",
            confidential=True,
        ),
    ] = field(default=None, repr=False)
