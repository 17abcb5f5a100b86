"""The settings of one user who may log in on the admin listener; see `settings`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Strict

from waitroom.settings import validators as values
from waitroom.settings.room import CONFIG, Text
from waitroom.settings.schema import About


@dataclass(frozen=True, slots=True)
class UserSettings:
    """A user who may log in, defined in the settings file instead of by ``waitroom user add``."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

    name: Annotated[
        Text,
        AfterValidator(values.user_name),
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
        str,
        Strict(),
        AfterValidator(values.password_hash),
        About(
            "The password's argon2id hash; the command `waitroom user hash` makes one.",
            "A change ends all sessions of the user.",
            example='"$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$2sVVrR6BbQ0hM1dLVfmXgkXV3hsDxs4TAYL5cbIYzcM"',
            confidential=True,
        ),
    ] = field(repr=False)
    totp_secret: Annotated[
        Annotated[str, Strict(), AfterValidator(values.totp_secret)] | None,
        About(
            "The secret of the user's authenticator app (TOTP, RFC 6238: SHA-1, 6 digits, 30 seconds), in base32.",
            "Set it to ask this user for a code besides the password.",
            example='"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"',
            unset="no code is asked for",
            confidential=True,
        ),
    ] = field(default=None, repr=False)
