"""The settings of one room: every key, its type, default, bounds and description; see `settings`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from waitroom.settings import validators
from waitroom.settings.bypass import BypassRule
from waitroom.settings.schema import CONFIG, About, StrictBool, StrictFloat, StrictInt, StrictStr

_HIDDEN_TAB = "A browser lets a hidden tab poll once a minute, and the longest poll is 30 s."


@dataclass(frozen=True, slots=True)
class RoomSettings:
    """One waiting room: the hosts and paths it covers, one upstream, its limits, one queue."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

    name: Annotated[
        StrictStr,
        AfterValidator(validators.room_name),
        About(
            "The room's name in commands, metrics and cookie names: 1 to 32 of a-z, 0-9, _ and -, beginning with a "
            "letter or digit.",
            "Leave it alone while visitors wait: under a new name the room has a new, empty line.",
            example='"shop"',
        ),
    ]
    upstream: Annotated[
        str | tuple[str, ...],
        BeforeValidator(validators.upstream_urls),
        About(
            "Where the shop behind this room listens: http://host:port, https://host:port or unix:///path/to.sock, "
            "without path, query, user or password; or a list of such addresses, all of one scheme. Of several, each "
            "request goes to the one with the fewest requests under way among those that take connections.",
            "Give a list where several servers make up the shop and no load balancer stands between.",
            example='"http://127.0.0.1:3000"',
        ),
    ]
    hosts: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.host_pattern)], ...],
        About(
            'The hosts this room covers, without scheme or port. "*.example.com" stands for every subdomain, '
            "though not for example.com itself.",
            "Set it where several shops share the gateway.",
            example='["shop.example.com", "*.shop.example.com"]',
            unset="any host",
        ),
    ] = ()
    paths: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.path_prefix)], ...],
        About(
            'Prefixes of the paths this room covers, each beginning with "/". A prefix covers what is below it and '
            "what shops serve under the same name: /sale covers /sale/a, /sale.json, /sale;v=1 and /index.php/sale, "
            "but not /sales.",
            "Leave it out: cover everything and list exceptions as bypass rules. What no prefix covers has no line.",
            example='["/sale/", "/checkout/"]',
            unset="every path",
        ),
    ] = ()
    rate_per_minute: Annotated[
        StrictFloat,
        Field(gt=0, le=10_000_000),
        About(
            "How many new visitors are admitted, spread evenly over the minute.",
            "Start with what the shop has borne in a load test; tune it while the sale runs.",
            "visitors per minute",
        ),
    ] = 600.0
    max_active: Annotated[
        StrictInt,
        Field(ge=1, le=10_000_000),
        About(
            "How many admitted visitors may be in the shop at once, those called but not yet in included.",
            "Set it to what the shop can hold; whichever of it and rate_per_minute is reached first decides.",
            "visitors",
        ),
    ] = 1000
    autopilot: Annotated[
        StrictBool,
        About(
            "Whether the gateway finds the rate by itself, between autopilot_floor and autopilot_ceiling: it raises it "
            "while the shop is well and somebody waits, lowers it before the shop falls, and lets nobody in while the "
            'shop fails. rate_per_minute is where it begins; rate_per_minute = "auto" is another way to switch it on.',
            "Switch it on where nobody knows what the shop can bear, or where that changes; docs/autopilot.md says "
            "what it looks at.",
        ),
    ] = False
    autopilot_floor: Annotated[
        StrictFloat,
        Field(gt=0, le=10_000_000),
        About(
            "The rate that the autopilot never goes below, unless the shop fails.",
            "Raise it to what the shop has borne on its worst day.",
            "visitors per minute",
        ),
    ] = 30.0
    autopilot_ceiling: Annotated[
        StrictFloat,
        Field(gt=0, le=10_000_000),
        About(
            "The rate that the autopilot never goes above. At least autopilot_floor.",
            "Set it to what those behind the shop, such as the payment provider, can take at the most.",
            "visitors per minute",
        ),
    ] = 6000.0
    autopilot_latency_seconds: Annotated[
        StrictFloat | None,
        Field(gt=0, le=600),
        About(
            "What the autopilot takes for slow: more than one in twenty of the shop's answers taking longer than this.",
            "Set it where you know what your visitors put up with, or where the shop was slow already when the "
            "autopilot began to learn.",
            "seconds",
            example="0.8",
            unset="learnt: three times what it was while all was well, and a tenth of a second more at the least",
        ),
    ] = None
    failure_header: Annotated[
        Annotated[StrictStr, AfterValidator(validators.header_line)] | None,
        About(
            "A header by which the shop says that a request failed although its status says otherwise: a name, or a "
            "name and a value. Answers of 500 and above are failures in any case.",
            "Set it where the shop answers 200 to everything.",
            example='"X-Order-Status: failed"',
            unset="the status alone tells",
        ),
    ] = None
    failure_text: Annotated[
        Annotated[StrictStr, AfterValidator(validators.failure_text)] | None,
        About(
            "A text by which the shop says in a JSON answer that a request failed, written just as the shop writes it, "
            "blanks included. It is looked for in answers of a JSON type that aren't compressed and whose "
            "Content-Length is at most 4096 bytes; the answer goes on as it comes.",
            "Set it where the shop answers 200 to everything, and no header tells.",
            example="'\"success\":false'",
            unset="no body is looked at",
        ),
    ] = None
    session_seconds: Annotated[
        StrictInt,
        Field(ge=60, le=86_400),
        About(
            "How long an admitted visitor may do nothing before the slot goes to the next. Every request starts "
            "it anew.",
            "Raise it where people read or fill in forms for long; lower it to fill slots sooner.",
            "seconds",
            reason="Below a minute a visitor reading one page would lose the session.",
        ),
    ] = 900
    session_max_seconds: Annotated[
        StrictInt,
        Field(ge=60, le=604_800),
        About(
            "How long a session may last in all, however busy the visitor is. At least session_seconds.",
            "Lower it where some stay for hours while others wait.",
            "seconds",
        ),
    ] = 14_400
    session_requests_in_flight: Annotated[
        StrictInt,
        Field(ge=1, le=65_536),
        About(
            "How many requests of one session may be under way at the same time in each worker. Further ones wait up "
            "to upstream_wait_seconds, then get a 429. Open WebSockets are counted apart, with the same limit.",
            "Raise it where a page of the shop loads very many files at a time.",
            "requests per worker",
        ),
    ] = 64
    session_requests_per_second: Annotated[
        StrictFloat,
        Field(gt=0, le=1_000_000),
        About(
            "How many requests a second one session may send, over all workers together; up to two seconds' worth may "
            "come together. Further ones wait up to upstream_wait_seconds, then get a 429.",
            "Lower it to keep a shared or automated session from loading the shop like a crowd.",
            "requests per second",
        ),
    ] = 100.0
    release_grace_seconds: Annotated[
        StrictInt,
        Field(ge=0, le=3600),
        About(
            "How long GET and HEAD requests of a session still reach the shop after the shop has released it, so that "
            "the thank-you page loads whole. The slot is free immediately.",
            "Raise it where the thank-you page loads parts later.",
            "seconds",
        ),
    ] = 30
    bind_pass: Annotated[
        Literal["none", "agent", "network"],
        About(
            "Binds each pass to the browser's User-Agent (agent), to the visitor's IPv4 address or IPv6 /64 network "
            "(network), or to nothing (none). A pass from another browser or network is ignored.",
            "Use agent or network where passes are sold or shared. Phones change networks in the middle of a purchase, "
            "so network throws out honest visitors.",
        ),
    ] = "none"
    claim_seconds: Annotated[
        StrictInt,
        Field(ge=90, le=86_400),
        About(
            "How long a slot is kept for a visitor who was called.",
            "Raise it where visitors wait for long and look away; every slot kept so stands empty meanwhile.",
            "seconds",
            reason=_HIDDEN_TAB,
        ),
    ] = 180
    claim_after_told_seconds: Annotated[
        StrictInt,
        Field(ge=90, le=86_400),
        About(
            "How long a slot is kept for a visitor whose browser or app was told that it is their turn. At most "
            "claim_seconds. One click on the page doubles it once. A visitor who was told and does not come may return "
            "once, at the end of the line.",
            "Raise it where visitors need longer to come back to the page; every slot kept so stands empty meanwhile.",
            "seconds",
            reason=_HIDDEN_TAB,
        ),
    ] = 90
    join_rate: Annotated[
        StrictFloat,
        Field(gt=0, le=1_000_000),
        About(
            "How many places visitors of one IPv4 address or IPv6 /64 network get per second; ten seconds' worth may "
            "come together. Further visitors see a page that asks for a moment and tries again by itself.",
            "Raise it where very many visitors share one address. Set trusted_proxies where a proxy stands in front, "
            "or all visitors share the proxy's address.",
            "visitors per second",
        ),
    ] = 50.0
    away_after_seconds: Annotated[
        StrictInt,
        Field(ge=90, le=86_400),
        About(
            "After how long without a sign of life a waiting visitor counts as away and is stepped over.",
            "Raise it where many visitors are on phones that sleep.",
            "seconds",
            reason=_HIDDEN_TAB,
        ),
    ] = 180
    keep_place_seconds: Annotated[
        StrictInt,
        Field(ge=90, le=604_800),
        About(
            "How long the place of a visitor who is away is kept. At least away_after_seconds.",
            "Raise it for lines that last for hours.",
            "seconds",
        ),
    ] = 3600
    method: Annotated[
        Literal["fifo", "passthrough"],
        About(
            "How the line is ordered: fifo, first come first served; or passthrough, nobody waits and everything "
            "is only counted.",
            "Take passthrough to watch the traffic before a sale, or to take the line away without a new set-up.",
        ),
    ] = "fifo"
    on_store_error: Annotated[
        Literal["hold", "admit", "close"],
        About(
            "What newcomers meet while the store cannot be reached: hold, the waiting page; admit, the shop; or "
            "close, a page that says closed. Admitted visitors go on in any case.",
            "Take admit where a minute without a limit does less harm than a minute without sales.",
        ),
    ] = "hold"
    without_pass: Annotated[
        Literal["refuse", "safe", "all"],
        About(
            "What requests without a pass that aren't navigations may do while nobody waits: refuse, nothing; safe, "
            "GET and HEAD; all, any method. without_pass_per_second bounds them. With method passthrough nothing is "
            "refused.",
            "Keep safe, and add a bypass rule for each webhook; use all only for apps that send requests without "
            "cookies.",
        ),
    ] = "safe"
    without_pass_per_second: Annotated[
        StrictFloat | None,
        Field(gt=0, le=1_000_000),
        About(
            "How many requests without a pass that aren't navigations reach the shop per second while nobody waits, "
            "over all workers together.",
            "Raise it where monitoring or apps without cookies need more; bypass rules have limits of their own.",
            "requests per second",
            example="5",
            unset="a tenth of the rate in force, at least 1, and at least 0.1 for each worker",
        ),
    ] = None
    preflights_per_second: Annotated[
        StrictFloat,
        Field(gt=0, le=1_000_000),
        About(
            "How many CORS preflights reach the shop per second, over all workers together. Those from networks with "
            "an active session don't count, nor do those answered from the cache.",
            "Name the shop's origins in cors_origins rather than raising it.",
            "requests per second",
        ),
    ] = 2.0
    cors_origins: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.cors_origin)], ...],
        About(
            "Origins whose CORS preflights the gateway answers itself; with any of them no preflight reaches the shop.",
            "Set it where a single-page app of another origin uses the shop's API.",
            example='["https://app.example.com"]',
            unset="preflights are answered by the shop, and its answers cached",
        ),
    ] = ()
    cors_methods: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.http_method)], ...],
        About(
            "The methods that answers to preflights of cors_origins allow.",
            "Name those that the app uses.",
            example='["GET", "POST", "PUT"]',
            unset="GET, HEAD, POST, PUT, PATCH and DELETE",
        ),
    ] = ()
    cors_headers: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(validators.header_name)], ...],
        About(
            "The request headers that answers to preflights of cors_origins allow.",
            "Name those that the app sends.",
            example='["Content-Type", "X-CSRF-Token"]',
            unset="Accept, Authorization, Content-Type and X-Requested-With",
        ),
    ] = ()
    waiting_status: Annotated[
        Literal[503, 200],
        About(
            "The status that the waiting page is answered with.",
            "Take 200 where something in front of the gateway replaces 503 answers by a page of its own.",
        ),
    ] = 503
    template: Annotated[
        Annotated[StrictStr, AfterValidator(validators.file_path)] | None,
        About(
            "Your own waiting page, a Jinja2 template. A relative path starts at the folder of the settings file "
            "(given in the environment or as a flag: at the working directory).",
            "Set it for a page in the shop's own look.",
            example='"waiting.html"',
            unset="the page that comes with Waitroom",
        ),
    ] = None
    bypass: Annotated[
        tuple[BypassRule, ...],
        About(
            "Rules for requests that never wait, such as payment webhooks and health checks; each a "
            "[[rooms.bypass]] table. See docs/bypass.md.",
            "Add one for every machine that calls the shop by itself.",
            example='[{paths = ["/webhooks/"]}]',
            unset="no rules",
        ),
    ] = ()
    upstream_ca_file: Annotated[
        Annotated[StrictStr, AfterValidator(validators.file_path)] | None,
        About(
            "The certificate authorities that may vouch for an https:// shop, a file in PEM form. A relative path "
            "starts at the folder of the settings file (given in the environment or as a flag: at the working "
            "directory).",
            "Set it where the shop's certificate was signed by an authority of your own, or by itself.",
            example='"shop-ca.pem"',
            unset="those that the system trusts",
        ),
    ] = None
    upstream_server_name: Annotated[
        Annotated[StrictStr, AfterValidator(validators.server_name)] | None,
        About(
            "The name that the certificate of an https:// shop must be for. The shop is asked for it as well (SNI).",
            "Set it where the shop is reached by an address or an inner name that its certificate doesn't have.",
            example='"shop.example.com"',
            unset="the host of upstream",
        ),
    ] = None
    health_path: Annotated[
        Annotated[StrictStr, AfterValidator(validators.url_path)] | None,
        About(
            "A path of the shop that each worker asks every address of it for, to learn whether it is well: an answer "
            "of 200 to 399 says so. The Host is the first of hosts that has no star, else that of the address.",
            "Set it where upstream is a list, to keep visitors from an address before one of them fails there.",
            example='"/healthz"',
            unset="addresses are judged by visitors' requests alone",
        ),
    ] = None
    health_seconds: Annotated[
        StrictFloat,
        Field(ge=0.1, le=3600),
        About(
            "How long after each other the questions for health_path are asked, and how long an answer may take.",
            "Lower it to notice sooner that an address is ill or well again.",
            "seconds",
            reason="Every worker asks every address.",
        ),
    ] = 5.0
    upstream_connect_seconds: Annotated[
        StrictFloat,
        Field(gt=0, le=3600),
        About(
            "How long connecting to an address of the shop may take, the TLS handshake included.",
            "Raise it where the shop is far away.",
            "seconds",
        ),
    ] = 5.0
    upstream_first_byte_seconds: Annotated[
        StrictFloat,
        Field(gt=0, le=86_400),
        About(
            "How long the shop may take until its answer begins.",
            "Raise it if the shop has requests that rightly take longer, such as exports.",
            "seconds",
        ),
    ] = 60.0
    upstream_idle_seconds: Annotated[
        StrictFloat,
        Field(gt=0, le=86_400),
        About(
            "How long the shop may send nothing in the middle of an answer.",
            "Raise it for streams that are silent for longer.",
            "seconds",
        ),
    ] = 60.0
    upstream_max_connections: Annotated[
        StrictInt,
        Field(ge=1, le=65_536),
        About(
            "How many connections to the shop each worker may hold, over all its addresses together. Requests without "
            "a pass use at most half of them, and one client's neighbourhood at most half of that.",
            "Keep this times workers within what the shop accepts.",
            "connections per worker",
        ),
    ] = 256
    upstream_wait_seconds: Annotated[
        StrictFloat,
        Field(ge=0, le=3600),
        About(
            "How long a request waits for a connection to the shop when all are busy.",
            "Raise it if the shop has few connections and quick answers.",
            "seconds",
        ),
    ] = 2.0

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The shop's addresses, from either form of the setting."""
        return (self.upstream,) if isinstance(self.upstream, str) else self.upstream
