"""The settings of the admin listener's users, and of webhooks; see `settings.gateway`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict

from waitroom.settings import validators
from waitroom.settings.schema import CONFIG, About, StrictStr


@dataclass(frozen=True, slots=True)
class UserSettings:
    """A user who may log in, defined in the settings file instead of by ``waitroom user add``."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

    name: Annotated[
        StrictStr,
        AfterValidator(validators.user_name),
        About(
            'The name to log in with: 1 to 64 of a-z, 0-9, ".", "_", "@" and "-", beginning with a letter or digit.',
            "Give everybody a name of their own: the audit log says who did what.",
            example='"anna"',
        ),
    ]
    role: Annotated[
        Literal["viewer", "operator", "admin"],
        About(
            "What the user may do: a viewer looks, an operator also changes the rooms, an admin may do everything.",
            "Give the least that will do. A change ends all sessions of the user.",
            example='"operator"',
        ),
    ]
    password_hash: Annotated[
        StrictStr,
        AfterValidator(validators.password_hash),
        About(
            "The password's argon2id hash; the command `waitroom user hash` makes one.",
            "A change ends all sessions of the user.",
            example='"$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$2sVVrR6BbQ0hM1dLVfmXgkXV3hsDxs4TAYL5cbIYzcM"',
            confidential=True,
        ),
    ] = field(repr=False)
    totp_secret: Annotated[
        Annotated[StrictStr, AfterValidator(validators.totp_secret)] | None,
        About(
            "The secret of the user's authenticator app (TOTP, RFC 6238: SHA-1, 6 digits, 30 seconds), in base32.",
            "Set it to ask this user for a code besides the password.",
            example='"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"',
            unset="no code is asked for",
            confidential=True,
        ),
    ] = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of events: its address, and the events that it receives."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

    url: Annotated[
        StrictStr,
        AfterValidator(validators.webhook_url),
        About(
            "Where events are sent, each as a POST of JSON: http:// or https://, without user or password. It may hold "
            "a secret path, so that no log shows more of it than its host. docs/webhooks.md says what is sent.",
            "Set it to what wakes the people on duty, or writes into their chat.",
            example='"https://hooks.example.com/waitroom"',
            confidential=True,
        ),
    ] = field(repr=False)
    events: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.webhook_event)], ...],
        About(
            f"Which events are sent: {', '.join(validators.WEBHOOK_EVENTS)}.",
            "Name a few where the receiver wakes somebody.",
            example='["shop_failing", "store_lost"]',
            unset="every event",
        ),
    ] = ()
    rooms: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.room_name)], ...],
        About(
            "The rooms whose events are sent, by their names.",
            "Set it where each shop has people of its own.",
            example='["shop"]',
            unset="every room",
        ),
    ] = ()
    secret: Annotated[
        Annotated[StrictStr, AfterValidator(validators.signing_secret)] | None,
        About(
            "What events are signed with, so that the receiver knows whom they are from: at least "
            f"{validators.SECRET_LENGTH} characters; the command `waitroom secret` makes one.",
            "Set it wherever the receiver is yours; give it to nobody else.",
            example='"..."',
            unset="events aren't signed",
            confidential=True,
        ),
    ] = field(default=None, repr=False)
