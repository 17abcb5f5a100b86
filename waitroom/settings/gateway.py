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

from waitroom.settings import store_url, validators
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

    rooms: Annotated[tuple[RoomSettings, ...], About("The waiting rooms, one [[rooms]] table each.", example="[]")]
    listen: Annotated[
        StrictStr,
        AfterValidator(validators.listen_address),
        About(
            "The address of the public listener: host:port or [v6]:port.",
            "Restrict it to 127.0.0.1 if another proxy on the same machine is in front.",
        ),
    ] = "0.0.0.0:8080"
    admin_listen: Annotated[
        StrictStr,
        AfterValidator(validators.listen_address),
        About(
            "The address of the admin listener: dashboard, API, metrics and health.",
            "Use an address that only operators can reach, never a public one.",
        ),
    ] = "127.0.0.1:8081"
    admin_hosts: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.admin_host)], ...],
        About(
            "Host names accepted by the admin listener, in addition to IP addresses and localhost. Requests for "
            "other hosts are rejected, which prevents DNS rebinding.",
            "Set it if operators use a name, such as one of a proxy that terminates TLS.",
            example='["waitroom.example.com"]',
            unset="only IP addresses and localhost",
        ),
    ] = ()
    workers: Annotated[
        StrictInt,
        Field(ge=1, le=512),
        About(
            "The number of edge processes that serve the public listener.",
            "Lower it to leave cores for the shop on the same machine.",
            "processes",
            example="4",
            unset="one for each core",
        ),
    ] = field(default_factory=available_cores)
    data_dir: Annotated[
        StrictStr,
        AfterValidator(validators.file_path),
        About(
            "The directory of the embedded store's file and of everything else that must survive a restart. A "
            "relative path is resolved against the working directory.",
            "Use a persistent disk, such as a volume if the gateway runs in a container.",
        ),
    ] = "waitroom-data"
    store_socket_dir: Annotated[
        Annotated[StrictStr, AfterValidator(validators.socket_directory)] | None,
        About(
            "The directory of the embedded store's Unix socket: an absolute path that only the gateway's user can "
            "write to.",
            "Set it if the file system of data_dir supports no Unix sockets.",
            example='"/run/waitroom"',
            unset="data_dir, or a private temporary directory if the path of data_dir is too long for a socket",
        ),
    ] = None
    tls_certificate: Annotated[
        Annotated[StrictStr, AfterValidator(validators.file_path)] | None,
        About(
            "The certificate of the public listener, which then serves only HTTPS: a PEM file with the server's "
            "certificate, followed by the intermediate certificates. Requires tls_key. A relative path is resolved "
            "against the directory of the settings file, or against the working directory if given as a flag or in "
            "the environment. SIGHUP reloads both files.",
            "Set it if nothing in front of the gateway terminates TLS.",
            example='"/etc/waitroom/shop.example.pem"',
            unset="plain HTTP",
        ),
    ] = None
    tls_key: Annotated[
        Annotated[StrictStr, AfterValidator(validators.file_path)] | None,
        About(
            "The private key of tls_certificate: a PEM file without a passphrase. Relative paths are resolved as for "
            "tls_certificate.",
            "Make the file readable only by the gateway's user.",
            example='"/etc/waitroom/shop.example.key"',
            unset="plain HTTP",
        ),
    ] = None
    hsts_seconds: Annotated[
        StrictInt,
        Field(ge=0, le=63_072_000),
        About(
            "How long browsers are to use only HTTPS for the host (Strict-Transport-Security). The header is added to "
            "the gateway's own responses and to those that set a pass, on the public and the admin listener, if the "
            "browser used HTTPS. A header of the shop's is kept. 0 adds none.",
            "Set it to 31536000 once everything on the host works over HTTPS: browsers remember it for that long.",
            "seconds",
        ),
    ] = 0
    proxy_protocol: Annotated[
        StrictBool,
        About(
            "Whether every connection to the public listener starts with a PROXY protocol header, version 1 or 2, "
            "with the visitor's address. Connections without one, or from peers outside trusted_proxies, are "
            "rejected.",
            "Turn it on behind a TCP load balancer, and configure that to send the header.",
        ),
    ] = False
    trusted_proxies: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.trusted_network)], ...],
        About(
            "Addresses or networks of the proxies in front of the gateway. Only their X-Forwarded-For, -Proto and "
            "-Host headers (or Forwarded, if those are missing) and PROXY protocol headers are trusted.",
            "Set it whenever a load balancer, CDN or nginx is in front, but never to a network that contains visitors.",
            example='["127.0.0.1", "10.0.0.0/8"]',
            unset="no proxy is trusted",
        ),
    ] = ()
    keep_headers: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.header_name)], ...],
        About(
            "Request headers to forward to the shop although they can change a request's path, method, host or "
            "address, such as X-HTTP-Method-Override. By default such headers are dropped unless they come from "
            "trusted_proxies.",
            "List those that the shop's own pages send.",
            example='["X-HTTP-Method-Override"]',
            unset="all of them are dropped",
        ),
    ] = ()
    strict_paths: Annotated[
        StrictBool,
        About(
            "Whether to reject, with a 400, paths that could belong to different rooms depending on how a server "
            "interprets them, such as /information/../sale. A path that is covered under any interpretation is "
            "always covered.",
            "Turn it off only if the shop needs such paths and its rooms are of equal value: the room with the "
            "longest prefix then gets them.",
        ),
    ] = True
    redis_url: Annotated[
        Annotated[StrictStr, AfterValidator(store_url.redis_address)] | None,
        About(
            "The Redis or Valkey that stores the queues: redis://, rediss:// (TLS) or unix://. Allowed options are db "
            "and, with rediss://, ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_cert_reqs and ssl_check_hostname.",
            "Set it if several machines share the queues. A password belongs here or in WAITROOM_REDIS_URL, not on "
            "the command line.",
            example='"redis://10.0.0.5:6379/0"',
            unset="an embedded store with its file in data_dir",
            confidential=True,
        ),
    ] = field(default=None, repr=False)
    secrets: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.signing_secret)], ...],
        About(
            "The keys for signing tickets and passes, newest first: the first one signs, all are accepted. Each has "
            f"at least {validators.SECRET_LENGTH} characters; `waitroom secret` generates one.",
            "Set it if several machines serve the same rooms. To rotate, put a new one first, and remove the oldest "
            "once all sessions from before have ended; with several machines, first add the new one at the end of "
            "the list on all of them.",
            example='["..."]',
            unset="generated at the first start",
            confidential=True,
        ),
    ] = field(default=(), repr=False)
    secrets_file: Annotated[
        Annotated[StrictStr, AfterValidator(validators.file_path)] | None,
        About(
            "A file with one secret per line, newest first, instead of secrets. A relative path is resolved against "
            "the directory of the settings file, or against the working directory if given as a flag or in the "
            "environment.",
            "Set it if secrets are mounted as files.",
            example='"/run/secrets/waitroom"',
            unset="no file",
        ),
    ] = None
    audit_key: Annotated[
        Annotated[StrictStr, AfterValidator(validators.signing_secret)] | None,
        About(
            "The key that signs the audit log, so that whoever can write to the store can't alter it unnoticed: at "
            f"least {validators.SECRET_LENGTH} characters; `waitroom secret` generates one.",
            "Set it, to the same value on all gateways, if several machines share a redis_url.",
            example='"..."',
            unset="derived from secrets if both redis_url and secrets are set, else generated in the file audit_key in "
            "data_dir",
            confidential=True,
        ),
    ] = field(default=None, repr=False)
    accepted_audit_keys: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.signing_secret)], ...],
        About(
            "Other keys that verify the audit log: earlier ones and, while you replace the key on several gateways, "
            "the next one. docs/access.md describes the steps.",
            "Keep an earlier key for as long as the log has entries that it signed.",
            example='["..."]',
            unset="only audit_key",
            confidential=True,
        ),
    ] = field(default=(), repr=False)
    grace_seconds: Annotated[
        StrictFloat,
        Field(ge=0, le=3600),
        About(
            "How long requests in progress may take to finish when the gateway stops.",
            "Keep it below your service manager's kill timeout.",
            "seconds",
        ),
    ] = 30.0
    stuck_after_seconds: Annotated[
        StrictFloat,
        Field(ge=5, le=3600),
        About(
            "How long an edge worker, the control process or the embedded store may show no sign of life before it is "
            "killed and replaced. Its connections are reset. At most three processes are replaced in ten minutes.",
            "Raise it if the machine is so busy that healthy processes are replaced.",
            "seconds",
            reason="A busy machine keeps healthy processes waiting for seconds.",
        ),
    ] = 20.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        About("The minimum level of log lines.", "Use debug for troubleshooting."),
    ] = "info"
    client_connections: Annotated[
        StrictInt,
        Field(ge=1, le=1_000_000),
        About(
            "The maximum number of client connections per worker. At the limit, the longest idle ones are closed for "
            "newcomers; a quarter is reserved for visitors with a pass.",
            "Raise it for very large crowds, together with the hard limit of open files (ulimit -Hn).",
            "connections per worker",
        ),
    ] = 20_000
    client_connections_per_address: Annotated[
        StrictInt,
        Field(ge=1, le=1_000_000),
        About(
            "The maximum number of client connections from one IPv4 address or IPv6 /64 network, loopback included. "
            "Trusted proxies are exempt; behind them, it limits each visitor's concurrent requests without a pass.",
            "Raise it if many visitors share an address, as behind a company's or a mobile network's gateway.",
            "connections per worker",
        ),
    ] = 1000
    client_head_bytes: Annotated[
        StrictInt,
        Field(ge=4096, le=1_048_576),
        About(
            "The maximum size of a request line and headers together.",
            "Raise it if the shop sets large cookies.",
            "bytes",
        ),
    ] = 65_536
    client_head_seconds: Annotated[
        StrictFloat,
        Field(gt=0, le=3600),
        About(
            "How long a client may take to send a request line and headers.",
            "Lower it during an attack with slow connections.",
            "seconds",
        ),
    ] = 10.0
    client_body_seconds: Annotated[
        StrictFloat,
        Field(gt=0, le=3600),
        About(
            "How long a client may pause within a request body.",
            "Raise it if visitors upload over poor connections.",
            "seconds",
        ),
    ] = 30.0
    client_min_bytes_per_second: Annotated[
        StrictFloat,
        Field(ge=0, le=1_000_000_000),
        About(
            "The minimum rate at which a client must send a request body or receive a response, measured over 30 s "
            "while the gateway waits for it. Slower clients are disconnected; 0 turns this off.",
            "Lower it if visitors have very slow connections.",
            "bytes per second",
        ),
    ] = 500.0
    client_body_buffer_bytes: Annotated[
        StrictInt,
        Field(ge=0, le=1_073_741_824),
        About(
            "How much of a request body is read before a connection to the shop is used.",
            "Raise it if uploads are larger and the shop has few connections.",
            "bytes",
        ),
    ] = 131_072
    client_body_buffer_seconds: Annotated[
        StrictFloat,
        Field(ge=0, le=3600),
        About(
            "How long to wait for client_body_buffer_bytes before forwarding what has arrived.",
            "Raise it if visitors have slow connections and the shop accepts few.",
            "seconds",
        ),
    ] = 10.0
    client_body_buffer_total_bytes: Annotated[
        StrictInt,
        Field(ge=0, le=1_099_511_627_776),
        About(
            "The maximum size of all buffered bodies together. Beyond it, requests without a pass get a 503, and "
            "those with a pass are streamed.",
            "Raise it if many visitors upload at the same time.",
            "bytes per worker",
        ),
    ] = 67_108_864
    client_idle_seconds: Annotated[
        StrictFloat,
        Field(gt=0, le=3600),
        About(
            "How long an idle keep-alive connection stays open.",
            "Keep it above the idle timeout of a proxy in front, so that the proxy closes first.",
            "seconds",
        ),
    ] = 75.0
    client_write_seconds: Annotated[
        StrictFloat,
        Field(gt=0, le=3600),
        About(
            "How long a client may stop receiving a response.",
            "Raise it if visitors download over poor connections.",
            "seconds",
        ),
    ] = 60.0
    polls_per_second: Annotated[
        StrictInt,
        Field(ge=10, le=1_000_000),
        About(
            "How many polls of waiting visitors a worker is to answer in a second when the stock is about to run out. "
            "Visitors then poll every 10 s, or less often if so many wait that this limit would be exceeded, so that "
            "they soon learn that everything is sold.",
            "Measure what a worker can answer on this machine before raising it.",
            "polls per second and worker",
        ),
    ] = 5000
    users: Annotated[
        tuple[UserSettings, ...],
        About(
            "The users who may log in on the admin listener, one [[users]] table each; `waitroom user add` adds more.",
            "Define them here if several machines share one settings file.",
            unset="without users, only this machine has access",
        ),
    ] = ()
    webhooks: Annotated[
        tuple[Webhook, ...],
        About(
            "The receivers of events, such as a failing shop; one [[webhooks]] table each.",
            "Add one for each system to notify.",
            example='[{url = "https://hooks.example.com/waitroom"}]',
            unset="no events are sent",
        ),
    ] = ()
    webhook_proxy_from_environment: Annotated[
        StrictBool,
        About(
            "Whether webhooks use the proxy that http_proxy, https_proxy and no_proxy name in the environment of the "
            "gateway.",
            "Turn it on if the receivers can be reached only through a proxy.",
        ),
    ] = False
