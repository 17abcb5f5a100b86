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
            'The login name: 1 to 64 characters of a-z, 0-9, ".", "_", "@" and "-", starting with a letter or digit.',
            "Give each person their own name: the audit log records who made a change.",
            example='"anna"',
        ),
    ]
    role: Annotated[
        Literal["viewer", "operator", "admin"],
        About(
            "The user's permissions: a viewer can look, an operator can also change rooms, an admin can do everything.",
            "Grant the lowest role that suffices. A change ends all sessions of the user.",
            example='"operator"',
        ),
    ]
    password_hash: Annotated[
        StrictStr,
        AfterValidator(validators.password_hash),
        About(
            "The argon2id hash of the password; `waitroom user hash` generates one.",
            "A change ends all sessions of the user.",
            example='"$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$2sVVrR6BbQ0hM1dLVfmXgkXV3hsDxs4TAYL5cbIYzcM"',
            confidential=True,
        ),
    ] = field(repr=False)
    totp_secret: Annotated[
        Annotated[StrictStr, AfterValidator(validators.totp_secret)] | None,
        About(
            "The secret of the user's authenticator app (TOTP, RFC 6238: SHA-1, 6 digits, 30 seconds), in base32.",
            "Set it to require a code from this user in addition to the password.",
            example='"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"',
            unset="no code is required",
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
            "The URL that receives events, each as a POST of JSON: http:// or https://, without user or password. It "
            "may contain a secret path: logs show only the host. docs/webhooks.md describes the requests.",
            "Set it to your alerting or chat system.",
            example='"https://hooks.example.com/waitroom"',
            confidential=True,
        ),
    ] = field(repr=False)
    events: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.webhook_event)], ...],
        About(
            f"The events to send: {', '.join(validators.WEBHOOK_EVENTS)}.",
            "Select a few if the receiver pages people.",
            example='["shop_failing", "store_lost"]',
            unset="all events",
        ),
    ] = ()
    rooms: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.room_name)], ...],
        About(
            "The names of the rooms whose events are sent.",
            "Set it if each shop has its own team.",
            example='["shop"]',
            unset="all rooms",
        ),
    ] = ()
    secret: Annotated[
        Annotated[StrictStr, AfterValidator(validators.signing_secret)] | None,
        About(
            "The key for signing events, so that the receiver can verify their origin: at least "
            f"{validators.SECRET_LENGTH} characters; `waitroom secret` generates one.",
            "Set it whenever you control the receiver, and share it with nobody else.",
            example='"..."',
            unset="events are not signed",
            confidential=True,
        ),
    ] = field(default=None, repr=False)
