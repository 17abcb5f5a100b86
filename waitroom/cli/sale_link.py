"""``waitroom sale-link``: links to the sale page, for those who watch a sale without an account."""

from __future__ import annotations

from typing import Annotated

import typer

from waitroom.cli.console import CommandError, ConfigFile, ExitCode, err, print_line
from waitroom.cli.gateway import AdminUrl, Note, RoomName, TokenFile, explain_unknown_room, gateway
from waitroom.control.auth.sale_links import DEFAULT_HOURS, MAX_HOURS


def sale_link(
    room: RoomName,
    hours: Annotated[
        int | None,
        typer.Option(help=f"How long the link works; {DEFAULT_HOURS} by default.", min=1, max=MAX_HOURS, metavar="N"),
    ] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Revoke all links of the room instead.")] = False,
    note: Note = "",
    config: ConfigFile = None,
    admin: AdminUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Print a link to the room's sale page, or revoke all of them.

    The page shows the figures of the sale to everybody who has the link, and nothing else.
    """
    if revoke and (hours is not None or note):
        raise CommandError(ExitCode.INVALID_INPUT, "--revoke", "revokes all links; omit --hours and --note")
    client = gateway(config, admin, token_file)
    with explain_unknown_room(client, room):
        if revoke:
            client.revoke_sale_links(room)
            print_line(f"Done: links to the sale page of {room} no longer work.")
            return
        link = client.create_sale_link(room, hours or DEFAULT_HOURS, note).value
    err.print(f"Sale page of {room}, until {link.expires_at}:", markup=False, soft_wrap=True)
    typer.echo(f"{client.url}{link.path}")
