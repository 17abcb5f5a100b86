"""The settings: every key, its type, default, bounds and description.

Each key is defined only once: here, in `settings.room` for a room, in `settings.bypass` for a
bypass rule, or in `settings.admin` for a user or a webhook. The reference
(docs/settings.md), the example file (config/waitroom.toml) and the error messages are generated from these definitions.
The results are frozen dataclasses with slots, which are cheap to read for every request.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field

from waitroom.settings import validators
from waitroom.settings.admin import UserSettings, Webhook
from waitroom.settings.room import RoomSettings
from waitroom.settings.schema import CONFIG, About, StrictBool, StrictFloat, StrictInt, StrictStr


def available_cores() -> int:
    """Count the cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a whole gateway."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

    rooms: Annotated[tuple[RoomSettings, ...], About("The waiting rooms, each a [[rooms]] table.", example="[]")]
    listen: Annotated[
        StrictStr,
        AfterValidator(validators.listen_address),
        About(
            "The address of the public listener: host:port or [v6]:port.",
            "Narrow it to 127.0.0.1 where another proxy on the same machine stands in front.",
        ),
    ] = "0.0.0.0:8080"
    admin_listen: Annotated[
        StrictStr,
        AfterValidator(validators.listen_address),
        About(
            "The address of the admin listener: dashboard, API, metrics and health.",
            "Give it an address that only operators can reach; never a public one.",
        ),
    ] = "127.0.0.1:8081"
    admin_hosts: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.admin_host)], ...],
        About(
            "Names that the admin listener may be asked for, besides addresses and localhost. Requests for others "
            "are refused, so that no stranger's page can reach it under a name of its own.",
            "Set it where operators come in by a name, such as through a proxy that keeps the certificate.",
            example='["waitroom.example.com"]',
            unset="addresses and localhost alone",
        ),
    ] = ()
    workers: Annotated[
        StrictInt,
        Field(ge=1, le=512),
        About(
            "How many edge processes serve the public listener.",
            "Lower it to leave cores to the shop on the same machine.",
            "processes",
            example="4",
            unset="as many as there are cores",
        ),
    ] = field(default_factory=available_cores)
    data_dir: Annotated[
        StrictStr,
        AfterValidator(validators.file_path),
        About(
            "The folder of the embedded store's file and of what else must outlive a restart. A relative path "
            "starts at the working directory.",
            "Put it on a disk that lasts, such as a volume where the gateway runs in a container.",
        ),
    ] = "waitroom-data"
    tls_certificate: Annotated[
        Annotated[StrictStr, AfterValidator(validators.file_path)] | None,
        About(
            "The certificate of the public listener, which then speaks HTTPS alone: a PEM file, the server's own "
            "certificate first and those that lead to its authority's after it. Goes together with tls_key. A relative "
            "path starts at the folder of the settings file (given in the environment or as a flag: at the working "
            "directory). SIGHUP makes the gateway read both files anew.",
            "Set it where nothing in front of the gateway keeps the certificate.",
            example='"/etc/waitroom/shop.example.pem"',
            unset="plain HTTP",
        ),
    ] = None
    tls_key: Annotated[
        Annotated[StrictStr, AfterValidator(validators.file_path)] | None,
        About(
            "The private key that belongs to tls_certificate: a PEM file without a passphrase. A relative path starts "
            "where that of tls_certificate does.",
            "Let nobody but the gateway's user read the file.",
            example='"/etc/waitroom/shop.example.key"',
            unset="plain HTTP",
        ),
    ] = None
    proxy_protocol: Annotated[
        StrictBool,
        About(
            "Whether every connection to the public listener begins with a header of the PROXY protocol, version 1 or "
            "2, that names the visitor's address. Connections without one are refused, and so are all that don't come "
            "from trusted_proxies.",
            "Switch it on where a load balancer passes TCP through, and tell it to send that header.",
        ),
    ] = False
    trusted_proxies: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.trusted_network)], ...],
        About(
            "Addresses or networks of the proxies in front of the gateway. X-Forwarded-For, -Proto and -Host, or where "
            "none of them is sent Forwarded, are believed from these only, and so is the PROXY protocol.",
            "Set it whenever a load balancer, CDN or nginx stands in front; never to a network that visitors are in.",
            example='["127.0.0.1", "10.0.0.0/8"]',
            unset="no proxy is believed",
        ),
    ] = ()
    keep_headers: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.header_name)], ...],
        About(
            "Request headers that reach the shop although they could move a request to another path, method, host or "
            "address, such as X-HTTP-Method-Override. From peers that aren't in trusted_proxies such headers are "
            "dropped otherwise.",
            "Name those that the shop's own pages send.",
            example='["X-HTTP-Method-Override"]',
            unset="all of them are dropped",
        ),
    ] = ()
    strict_paths: Annotated[
        StrictBool,
        About(
            "Whether a path that could be read as belonging to different rooms, such as /information/../sale, is "
            "refused with a 400. If some of its readings are covered and some aren't, it is covered in any case.",
            "Switch it off only where the shop needs such paths, and its rooms are of equal value: the room with the "
            "longest prefix gets them then.",
        ),
    ] = True
    redis_url: Annotated[
        Annotated[StrictStr, AfterValidator(validators.redis_address)] | None,
        About(
            "The Redis or Valkey that holds the lines: redis://, rediss:// (TLS) or unix://.",
            "Set it where several machines share the lines.",
            example='"redis://10.0.0.5:6379/0"',
            unset="an embedded store, its file in data_dir",
            confidential=True,
        ),
    ] = field(default=None, repr=False)
    secrets: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.signing_secret)], ...],
        About(
            "What tickets and passes are signed with, newest first: the first signs, all are accepted. Each at least "
            f"{validators.SECRET_LENGTH} characters; the command `waitroom secret` makes one.",
            "Set it where several machines serve the same rooms. To rotate, put a new one first and take the "
            "oldest away once no session lasts from before.",
            example='["..."]',
            unset="one is made at the first start",
            confidential=True,
        ),
    ] = field(default=(), repr=False)
    secrets_file: Annotated[
        Annotated[StrictStr, AfterValidator(validators.file_path)] | None,
        About(
            "A file with one secret a line, newest first, instead of secrets. A relative path starts at the folder of "
            "the settings file (given in the environment or as a flag: at the working directory).",
            "Set it where secrets are mounted as files.",
            example='"/run/secrets/waitroom"',
            unset="no file",
        ),
    ] = None
    grace_seconds: Annotated[
        StrictFloat,
        Field(ge=0, le=3600),
        About(
            "How long requests under way may take to end when the gateway stops.",
            "Keep it below the time your service manager waits before it kills.",
            "seconds",
        ),
    ] = 30.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        About("From which level on log lines are written.", "Take debug while you look for something."),
    ] = "info"
    client_connections: Annotated[
        StrictInt,
        Field(ge=1, le=1_000_000),
        About(
            "How many client connections each worker holds open. At the limit the longest idle ones are closed for "
            "newcomers; a quarter is kept for visitors with a pass.",
            "Raise it for very large crowds, together with the hard limit of open files (ulimit -Hn).",
            "connections per worker",
        ),
    ] = 20_000
    client_connections_per_address: Annotated[
        StrictInt,
        Field(ge=1, le=1_000_000),
        About(
            "How many client connections one IPv4 address or IPv6 /64 network may hold, loopback included. Trusted "
            "proxies are exempt; behind them it is how many requests each visitor may have under way without a pass.",
            "Raise it where many visitors share an address, as behind a company's or a mobile network's gateway.",
            "connections per worker",
        ),
    ] = 1000
    client_head_bytes: Annotated[
        StrictInt,
        Field(ge=4096, le=1_048_576),
        About(
            "The most that a request's line and headers may take together.",
            "Raise it where the shop sets large cookies.",
            "bytes",
        ),
    ] = 65_536
    client_head_seconds: Annotated[
        StrictFloat,
        Field(gt=0, le=3600),
        About(
            "How long a client may take to send a request's line and headers.",
            "Lower it while slow connections are used as an attack.",
            "seconds",
        ),
    ] = 10.0
    client_body_seconds: Annotated[
        StrictFloat,
        Field(gt=0, le=3600),
        About(
            "How long a client may send nothing in the middle of a request's body.",
            "Raise it where people upload over bad lines.",
            "seconds",
        ),
    ] = 30.0
    client_min_bytes_per_second: Annotated[
        StrictFloat,
        Field(ge=0, le=1_000_000_000),
        About(
            "How many bytes per second a client must at least send of a body, or take of an answer, measured over 30 s "
            "while bytes wait for it. Slower clients are disconnected; 0 switches that off.",
            "Lower it where visitors have very slow connections.",
            "bytes per second",
        ),
    ] = 500.0
    client_body_buffer_bytes: Annotated[
        StrictInt,
        Field(ge=0, le=1_073_741_824),
        About(
            "How much of a request's body is read before a connection to the shop is taken.",
            "Raise it where uploads are larger and the shop has few connections.",
            "bytes",
        ),
    ] = 131_072
    client_body_buffer_seconds: Annotated[
        StrictFloat,
        Field(ge=0, le=3600),
        About(
            "How long to wait for client_body_buffer_bytes before the request goes on with the part that has arrived.",
            "Raise it where visitors have slow connections and the shop takes few.",
            "seconds",
        ),
    ] = 10.0
    client_body_buffer_total_bytes: Annotated[
        StrictInt,
        Field(ge=0, le=1_099_511_627_776),
        About(
            "How much of all bodies together may be buffered. Beyond it requests without a pass get a 503, and those "
            "with a pass are streamed.",
            "Raise it where many visitors upload at the same time.",
            "bytes per worker",
        ),
    ] = 67_108_864
    client_idle_seconds: Annotated[
        StrictFloat,
        Field(gt=0, le=3600),
        About(
            "How long a connection is kept open between two requests.",
            "Keep it above the same time of a proxy in front, so that the proxy closes first.",
            "seconds",
        ),
    ] = 75.0
    client_write_seconds: Annotated[
        StrictFloat,
        Field(gt=0, le=3600),
        About(
            "How long a client may take nothing of the answer sent to it.",
            "Raise it where people download over bad lines.",
            "seconds",
        ),
    ] = 60.0
    users: Annotated[
        tuple[UserSettings, ...],
        About(
            "Who may log in on the admin listener, each a [[users]] table; `waitroom user add` adds others.",
            "Name them here where several machines share one settings file.",
            unset="without any user, only this machine may come in",
        ),
    ] = ()
    webhooks: Annotated[
        tuple[Webhook, ...],
        About(
            "Who is told of events, such as a shop that fails; each a [[webhooks]] table.",
            "Add one for each that should hear of them.",
            example='[{url = "https://hooks.example.com/waitroom"}]',
            unset="nobody is told",
        ),
    ] = ()
