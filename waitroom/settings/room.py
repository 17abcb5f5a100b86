"""The settings of one room: every key, its type, default, bounds and description; see `settings`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from waitroom.settings import bounds, validators
from waitroom.settings.bypass import BypassRule
from waitroom.settings.event import EventSettings
from waitroom.settings.schema import CONFIG, About, StrictBool, StrictFloat, StrictInt, StrictStr


def _room_method(value: object) -> object:
    """Refuse the order of a prequeue, with a hint; see `EventSettings.method`."""
    if value == "random":
        raise validators.invalid_value(
            'can\'t be "random": only the prequeue of an event is shuffled.',
            'Use "fifo", and set method = "random" below [[rooms.events]].',
        )
    return value


@dataclass(frozen=True, slots=True)
class RoomSettings:
    """One waiting room: the hosts and paths it covers, one upstream, its limits, one queue."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

    name: Annotated[
        StrictStr,
        AfterValidator(validators.room_name),
        About(
            "The room's name in commands, metrics and cookies: 1 to 32 characters of a-z, 0-9, _ and -, starting "
            "with a letter or digit.",
            "Don't change it while visitors wait: a room with a new name has a new, empty queue.",
            example='"shop"',
        ),
    ]
    upstream: Annotated[
        str | tuple[str, ...],
        BeforeValidator(validators.upstream_urls),
        About(
            "The address of the shop behind this room: http://host:port, https://host:port or unix:///path/to.sock, "
            "without path, query, user or password; or a list of such addresses with the same scheme. With a list, "
            "each request goes to the healthy address with the fewest requests in flight.",
            "Use a list if the shop has several servers and no load balancer.",
            example='"http://127.0.0.1:3000"',
        ),
    ]
    hosts: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.host_pattern)], ...],
        About(
            'The hosts that this room covers, without scheme or port. "*.example.com" matches all subdomains, but '
            "not example.com itself.",
            "Set it if several shops share the gateway.",
            example='["shop.example.com", "*.shop.example.com"]',
            unset="any host",
        ),
    ] = ()
    paths: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.path_prefix)], ...],
        About(
            'The path prefixes that this room covers, each starting with "/". A prefix covers the paths below it and '
            "other names under which servers deliver the same page: /sale covers /sale/a, /sale.json, /sale;v=1 and "
            "/index.php/sale, but not /sales.",
            "Leave it unset if possible: cover everything, and list exceptions as bypass rules. Paths that no prefix "
            "covers have no queue.",
            example='["/sale/", "/checkout/"]',
            unset="all paths",
        ),
    ] = ()
    rate_per_minute: Annotated[
        StrictFloat,
        bounds.RATE,
        About(
            "The number of new visitors admitted per minute, spread evenly.",
            "Start with the rate that the shop sustained in a load test, and tune it during the sale.",
            "visitors per minute",
        ),
    ] = 600.0
    max_active: Annotated[
        StrictInt,
        bounds.MAX_ACTIVE,
        About(
            "The maximum number of admitted visitors in the shop, including those who were called and have not "
            "entered yet.",
            "Set it to the number of visitors that the shop can handle. Whichever of max_active and rate_per_minute "
            "is reached first applies.",
            "visitors",
        ),
    ] = 1000
    autopilot: Annotated[
        StrictBool,
        About(
            "Whether the gateway finds the rate by itself, between autopilot_floor and autopilot_ceiling: it raises "
            "the rate while the shop is healthy and visitors wait, lowers it before the shop is overloaded, and "
            'stops admission while the shop fails. It starts with rate_per_minute; rate_per_minute = "auto" turns it '
            "on too.",
            "Turn it on if the capacity of the shop is unknown or changes. docs/autopilot.md explains how it works.",
        ),
    ] = False
    autopilot_floor: Annotated[
        StrictFloat,
        Field(gt=0, le=10_000_000),
        About(
            "The minimum rate of the autopilot, unless the shop fails.",
            "Raise it to what the shop sustained on its worst day.",
            "visitors per minute",
        ),
    ] = 30.0
    autopilot_ceiling: Annotated[
        StrictFloat,
        Field(gt=0, le=10_000_000),
        About(
            "The maximum rate of the autopilot. At least autopilot_floor.",
            "Set it to the maximum that the shop's dependencies can handle, such as its payment provider.",
            "visitors per minute",
        ),
    ] = 6000.0
    autopilot_latency_seconds: Annotated[
        StrictFloat | None,
        Field(gt=0, le=600),
        About(
            "The slow threshold of the autopilot: the shop counts as slow if the 95th percentile of its latency "
            "exceeds this.",
            "Set it if you know the latency that visitors accept, or if the shop was already slow when the autopilot "
            "began to learn.",
            "seconds",
            example="0.8",
            unset="learned: three times the healthy latency, and at least 0.1 s more",
        ),
    ] = None
    shop_secret: Annotated[
        Annotated[StrictStr, AfterValidator(validators.shop_secret)] | None,
        About(
            "The key that signs Waitroom-Proof, a header by which the shop recognizes the gateway's requests: at least "
            f"{validators.SHOP_SECRET_LENGTH} characters; `waitroom secret` generates one.",
            "Set it, and the same in the shop, to let the shop refuse requests that bypass the gateway. docs/shop.md "
            "explains how.",
            example='"..."',
            unset="requests carry no proof",
            confidential=True,
        ),
    ] = field(default=None, repr=False)
    failure_header: Annotated[
        Annotated[StrictStr, AfterValidator(validators.header_line)] | None,
        About(
            "A response header that marks a failed request despite a successful status: a name, or a name and a "
            "value. Statuses of 500 and above always count as failures.",
            "Set it if the shop answers 200 to everything.",
            example='"X-Order-Status: failed"',
            unset="only the status counts",
        ),
    ] = None
    failure_text: Annotated[
        Annotated[StrictStr, AfterValidator(validators.failure_text)] | None,
        About(
            "A text that marks a failed request in a JSON response, exactly as the shop writes it, spaces included. "
            "It is searched in uncompressed responses with a JSON type and a Content-Length of at most 4096 bytes; "
            "the response is forwarded unchanged.",
            "Set it if the shop answers 200 to everything and sets no header for failures.",
            example="'\"success\":false'",
            unset="bodies are not searched",
        ),
    ] = None
    session_seconds: Annotated[
        StrictInt,
        bounds.SESSION,
        About(
            "How long an admitted visitor may be idle before the slot goes to the next visitor. Every request "
            "extends the session.",
            "Raise it if visitors read or fill in forms for a long time; lower it to free slots sooner.",
            "seconds",
            reason=bounds.SESSION_REASON,
        ),
    ] = 900
    session_max_seconds: Annotated[
        StrictInt,
        bounds.SESSION_MAX,
        About(
            "The maximum length of a session, even of an active visitor. At least session_seconds.",
            "Lower it if some visitors stay for hours while others wait.",
            "seconds",
        ),
    ] = 14_400
    session_requests_in_flight: Annotated[
        StrictInt,
        Field(ge=1, le=65_536),
        About(
            "The maximum number of concurrent requests of one session per worker. Further requests wait for up to "
            "upstream_wait_seconds, then get a 429. Open WebSockets are counted separately, with the same limit.",
            "Raise it if a page of the shop loads very many files at the same time.",
            "requests per worker",
        ),
    ] = 64
    session_requests_per_second: Annotated[
        StrictFloat,
        Field(gt=0, le=1_000_000),
        About(
            "The maximum number of requests per second of one session, across all workers, with bursts of up to two "
            "seconds' worth. Further requests wait for up to upstream_wait_seconds, then get a 429.",
            "Lower it to prevent a shared or automated session from loading the shop like a crowd.",
            "requests per second",
        ),
    ] = 100.0
    release_grace_seconds: Annotated[
        StrictInt,
        Field(ge=0, le=3600),
        About(
            "How long GET and HEAD requests of a session still reach the shop after the shop has released it, so "
            "that the confirmation page loads completely. The slot is free immediately.",
            "Raise it if the confirmation page loads parts later.",
            "seconds",
        ),
    ] = 30
    bind_pass: Annotated[
        Literal["none", "agent", "network"],
        About(
            "Binds each pass to the browser's User-Agent (agent), to the visitor's IPv4 address or IPv6 /64 network "
            "(network), or to nothing (none). A pass from another browser or network is ignored.",
            "Use agent or network if passes are sold or shared. Phones change networks during a purchase, so network "
            "also ends sessions of honest visitors.",
        ),
    ] = "none"
    claim_seconds: Annotated[
        StrictInt,
        bounds.HIDDEN_TAB,
        About(
            "How long a slot is reserved for a called visitor.",
            "Raise it if visitors wait for a long time and look away; a reserved slot is empty until then.",
            "seconds",
            reason=bounds.HIDDEN_TAB_REASON,
        ),
    ] = 180
    claim_after_told_seconds: Annotated[
        StrictInt,
        bounds.HIDDEN_TAB,
        About(
            "How long a slot is reserved for a visitor whose browser or app has been notified of the turn. At most "
            "claim_seconds. One click on the page doubles it once. A visitor who was notified and doesn't come may "
            "return once, at the end of the queue.",
            "Raise it if visitors need longer to return to the page; a reserved slot is empty until then.",
            "seconds",
            reason=bounds.HIDDEN_TAB_REASON,
        ),
    ] = 90
    join_rate: Annotated[
        StrictFloat,
        Field(gt=0, le=1_000_000),
        About(
            "The maximum number of places per second for visitors of one IPv4 address or IPv6 /64 network, with "
            "bursts of up to ten seconds' worth. Further visitors see a page that asks them to wait a moment and "
            "retries automatically.",
            "Raise it if very many visitors share one address. Set trusted_proxies if a proxy is in front, otherwise "
            "all visitors share the proxy's address.",
            "visitors per second",
        ),
    ] = 50.0
    away_after_seconds: Annotated[
        StrictInt,
        bounds.HIDDEN_TAB,
        About(
            "How long a waiting visitor may be silent before counting as away and being skipped.",
            "Raise it if many visitors use phones that sleep.",
            "seconds",
            reason=bounds.HIDDEN_TAB_REASON,
        ),
    ] = 180
    keep_place_seconds: Annotated[
        StrictInt,
        bounds.KEEP_PLACE,
        About(
            "How long the place of an away visitor is kept. At least away_after_seconds.",
            "Raise it for queues that last for hours.",
            "seconds",
        ),
    ] = 3600
    recovery_seconds: Annotated[
        StrictInt,
        bounds.RECOVERY,
        About(
            "How long nobody is called after the store has lost data, so that those who waited or were inside report "
            "first. Calls resume sooner once nine tenths of those known to wait have reported.",
            "Keep at least 30, the longest interval between two polls of the waiting page. Shorten it only if losing "
            "the order of the queue is better than a pause.",
            "seconds",
        ),
    ] = 30
    method: Annotated[
        Annotated[Literal["fifo", "passthrough", "reject"], BeforeValidator(_room_method)],
        About(
            "The queueing method: fifo admits in order of arrival; passthrough admits everybody and only counts, also "
            "those whom the limits would have let wait; reject admits nobody: visitors see that the shop is closed, "
            "and those inside finish.",
            "Use passthrough to observe traffic before a sale, or to remove the queue without a new deployment. Use "
            "reject to keep a room closed, whatever its state.",
        ),
    ] = "fifo"
    on_store_error: Annotated[
        Literal["hold", "admit", "close"],
        About(
            "The response to newcomers while the store is unavailable: the waiting page (hold), the shop (admit), or a "
            "page that says the shop is closed (close). Admitted visitors are not affected.",
            "Use admit if a minute without a limit does less harm than a minute without sales.",
        ),
    ] = "hold"
    without_pass: Annotated[
        Literal["refuse", "safe", "all"],
        About(
            "Which requests without a pass, other than navigations, are forwarded while nobody waits: none (refuse), "
            "GET and HEAD (safe), or all methods (all). without_pass_per_second limits them. With method "
            "passthrough, all are forwarded.",
            "Keep safe, and add a bypass rule for each webhook. Use all only for apps that send requests without "
            "cookies.",
        ),
    ] = "safe"
    without_pass_per_second: Annotated[
        StrictFloat | None,
        Field(gt=0, le=1_000_000),
        About(
            "The maximum number of requests per second without a pass, other than navigations, that reach the shop "
            "while nobody waits, across all workers.",
            "Raise it if monitoring or apps without cookies need more; bypass rules have their own limits.",
            "requests per second",
            example="5",
            unset="a tenth of the current rate, at least 1, and at least 0.1 for each worker",
        ),
    ] = None
    preflights_per_second: Annotated[
        StrictFloat,
        Field(gt=0, le=1_000_000),
        About(
            "The maximum number of CORS preflights per second that reach the shop, across all workers. Preflights "
            "from networks with an active session, and those answered from the cache, don't count.",
            "Set cors_origins to the shop's origins instead of raising it.",
            "requests per second",
        ),
    ] = 2.0
    cors_origins: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.cors_origin)], ...],
        About(
            "Origins whose CORS preflights the gateway answers itself; if set, no preflight reaches the shop.",
            "Set it if a single-page app on another origin uses the shop's API.",
            example='["https://app.example.com"]',
            unset="the shop answers preflights, and its responses are cached",
        ),
    ] = ()
    cors_methods: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.http_method)], ...],
        About(
            "The methods allowed in responses to preflights of cors_origins.",
            "List those that the app uses.",
            example='["GET", "POST", "PUT"]',
            unset="GET, HEAD, POST, PUT, PATCH and DELETE",
        ),
    ] = ()
    cors_headers: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.header_name)], ...],
        About(
            "The request headers allowed in responses to preflights of cors_origins.",
            "List those that the app sends.",
            example='["Content-Type", "X-CSRF-Token"]',
            unset="Accept, Authorization, Content-Type and X-Requested-With",
        ),
    ] = ()
    waiting_status: Annotated[
        Literal[503, 200],
        About(
            "The HTTP status of the waiting page.",
            "Use 200 if a proxy in front replaces 503 responses with its own page.",
        ),
    ] = 503
    template: Annotated[
        Annotated[StrictStr, AfterValidator(validators.file_path)] | None,
        About(
            "A custom waiting page, as a Jinja2 template. A relative path is resolved against the directory of the "
            "settings file, or against the working directory if given as a flag or in the environment.",
            "Set it for a page in the shop's design.",
            example='"waiting.html"',
            unset="the built-in page",
        ),
    ] = None
    bypass: Annotated[
        tuple[BypassRule, ...],
        About(
            "Rules for requests that never wait, such as payment webhooks and health checks; one [[rooms.bypass]] "
            "table each. See docs/bypass.md.",
            "Add one for every system that calls the shop by itself.",
            example='[{paths = ["/webhooks/"]}]',
            unset="no rules",
        ),
    ] = ()
    events: Annotated[
        tuple[EventSettings, ...],
        About(
            "Scheduled sales, one [[rooms.events]] table each, at most 64. See docs/events.md.",
            "Add one for each sale that begins at a known time.",
            example='[{name = "sale", start = 2026-12-12T11:00:00+07:00}]',
            unset="no events",
        ),
    ] = ()
    upstream_ca_file: Annotated[
        Annotated[StrictStr, AfterValidator(validators.file_path)] | None,
        About(
            "The certificate authorities trusted for an https:// shop, as a PEM file. A relative path is resolved "
            "against the directory of the settings file, or against the working directory if given as a flag or in "
            "the environment.",
            "Set it if the shop's certificate is self-signed or signed by a private authority.",
            example='"shop-ca.pem"',
            unset="the system's authorities",
        ),
    ] = None
    upstream_server_name: Annotated[
        Annotated[StrictStr, AfterValidator(validators.server_name)] | None,
        About(
            "The name that the certificate of an https:// shop must be valid for; it is also sent as SNI.",
            "Set it if the shop is reached by an address or an internal name that its certificate doesn't contain.",
            example='"shop.example.com"',
            unset="the host of upstream",
        ),
    ] = None
    health_path: Annotated[
        Annotated[StrictStr, AfterValidator(validators.url_path)] | None,
        About(
            "A path of the shop for health checks: each worker requests it from every address, and a status of 200 "
            "to 399 is healthy. The Host is the first of hosts without a wildcard, otherwise that of the address.",
            "Set it if upstream is a list, to take an address out of rotation before a visitor's request fails.",
            example='"/healthz"',
            unset="only visitors' requests determine health",
        ),
    ] = None
    health_seconds: Annotated[
        StrictFloat,
        Field(ge=0.1, le=3600),
        About(
            "Interval between health checks, and the timeout of each.",
            "Lower it to detect failures and recoveries sooner.",
            "seconds",
            reason="Every worker checks every address.",
        ),
    ] = 5.0
    upstream_connect_seconds: Annotated[
        StrictFloat,
        Field(gt=0, le=3600),
        About(
            "The timeout for connecting to an address of the shop, including the TLS handshake.",
            "Raise it if the shop is far away.",
            "seconds",
        ),
    ] = 5.0
    upstream_first_byte_seconds: Annotated[
        StrictFloat,
        Field(gt=0, le=86_400),
        About(
            "How long the shop may take until its response begins.",
            "Raise it if the shop has requests that take longer, such as exports.",
            "seconds",
        ),
    ] = 60.0
    upstream_idle_seconds: Annotated[
        StrictFloat,
        Field(gt=0, le=86_400),
        About(
            "How long the shop may pause within a response.",
            "Raise it for streams that are silent for longer.",
            "seconds",
        ),
    ] = 60.0
    upstream_max_connections: Annotated[
        StrictInt,
        Field(ge=1, le=65_536),
        About(
            "The maximum number of connections to the shop per worker, across all addresses. Requests without a pass "
            "use at most half of them, and one client network at most half of that.",
            "Keep this times workers within what the shop accepts.",
            "connections per worker",
        ),
    ] = 256
    upstream_wait_seconds: Annotated[
        StrictFloat,
        Field(ge=0, le=3600),
        About(
            "How long a request waits for a connection to the shop if all are busy.",
            "Raise it if the shop has few connections and responds quickly.",
            "seconds",
        ),
    ] = 2.0

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The shop's addresses, from either form of the setting."""
        return (self.upstream,) if isinstance(self.upstream, str) else self.upstream
