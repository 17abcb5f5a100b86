"""Real shops that keep a log of their own: nginx, Django behind gunicorn, and PHP with a front controller.

Tests read there which requests reached a shop, never from what the gateway says.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from support.gateway_process import eventually, needs
from support.nginx import nginx_command
from support.ports import free_port
from support.third_party import running

HERE = Path(__file__).parent
MARKER = "/marker-of-the-test"
BIG = 8_000_000  # more than the buffers of all sockets on the way
NGINX = """
    log_format shop escape=json '{{"at":$msec,"method":"$request_method","target":"$request_uri",'
        '"session":"$http_waitroom_session","length":$request_length,"took":$request_time,"status":$status}}';
    access_log {folder}/shop.log shop;
    client_max_body_size 0;
    map $http_upgrade $upgrading {{ default upgrade; "" ""; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        root {folder}/files;
        add_header Cache-Control no-store always;
        # As a front controller takes them: any method, any path.
        location / {{
            if ($request_method = OPTIONS) {{
                add_header Access-Control-Allow-Origin $http_origin;
                add_header Access-Control-Allow-Methods "GET, POST, PUT";
                add_header Access-Control-Allow-Headers "content-type, x-requested-with";
                return 204;
            }}
            return 200 "the shop\\n";
        }}
        # As a rewrite rule without an end: whatever begins like the sale is the sale.
        location ~* ^/(index\\.php/+)?sale(?![a-z/-]) {{ return 200 "ordered\\n"; }}
        # The whole body is taken before the answer.
        location ~ /upload$ {{ rewrite ^ /taken break; proxy_pass http://127.0.0.1:{port}; }}
        location = /taken {{ access_log off; return 200 "taken\\n"; }}
        location ~ /big\\.bin$ {{ try_files /big.bin =404; }}
        # The buyer is done; the page's parts come afterwards.
        location = /thanks {{ add_header Waitroom-Command release always; return 200 "thank you\\n"; }}
        location ~ /socket$ {{
            rewrite ^ /chat break;
            proxy_pass http://127.0.0.1:{sockets};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $upgrading;
            proxy_read_timeout 600s;
        }}
    }}
"""


@dataclass(frozen=True)
class Arrival:
    """A request that reached a shop.

    Attributes:
        at: When, in Unix time by the shop's clock.
        session: The visitor's, as the gateway told the shop; empty without one.
        length: How many bytes of a body came; of nginx the bytes of the whole request.
    """

    at: float
    method: str
    target: str
    session: str
    length: int
    more: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass
class RealShop:
    """A shop in processes of its own.

    Attributes:
        folder: Of its log, ``shop.log``, a JSON object in each line.
    """

    port: int
    folder: Path
    _read: int = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connections(self) -> int:
        """How many are open, of whoever has them, by the kernel's table."""
        port, established = f":{self.port:04X}", "01"
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(line[1].endswith(port) and line[3] == established for line in lines)

    async def arrived(self) -> list[Arrival]:
        """All that has reached it since the last time, once everything answered is in its log."""
        async with aiohttp.ClientSession() as http, http.get(self.address + MARKER) as answer:
            await answer.read()
        lines = await eventually(self._up_to_marker, every=0.01)
        found = [json.loads(line) for line in lines]
        return [
            Arrival(one["at"], one["method"], one["target"], one["session"], one["length"], one)
            for one in found
            if "at" in one and one["target"] != MARKER
        ]

    def _up_to_marker(self) -> Sequence[bytes] | None:
        new = (self.folder / "shop.log").read_bytes()[self._read :]
        marker = new.find(MARKER.encode())
        end = new.find(b"\n", marker) + 1
        if marker < 0 or not end:
            return None
        self._read += end
        return new[:end].splitlines()


@contextlib.asynccontextmanager
async def nginx_shop(folder: Path, *, sockets: int = 9) -> AsyncIterator[RealShop]:
    """nginx with every path, ``…/upload``, ``…/big.bin`` and ``…/socket``.

    Args:
        sockets: The port of a server that speaks WebSocket; see `real_peers.uvicorn`.
    """
    home = folder / "nginx-shop"
    (home / "files").mkdir(parents=True)
    with (home / "files" / "big.bin").open("wb") as big:
        big.truncate(BIG)
    shop = RealShop(free_port(), home)
    config = NGINX.format(folder=home, port=shop.port, sockets=sockets)
    command = nginx_command(home, config)
    file = home / "nginx.conf"
    file.write_text(
        file.read_text().replace("access_log off;", "").replace("worker_connections 512", "worker_connections 4096")
    )
    async with running(command, shop.port, home):
        yield shop


@contextlib.asynccontextmanager
async def php_shop(folder: Path) -> AsyncIterator[RealShop]:
    """PHP's own server, which takes one request at a time, and a front controller."""
    home = folder / "php-shop"
    home.mkdir(parents=True)
    shop = RealShop(free_port(), home)
    command = [
        needs("php"),
        "-n",
        "-q",
        "-S",
        f"127.0.0.1:{shop.port}",
        "-t",
        str(home),
        str(HERE / "front_controller.php"),
    ]
    async with running(command, shop.port, home, SHOP_LOG=str(home / "shop.log")):
        yield shop


@dataclass
class DjangoShop(RealShop):
    """Django, whose baskets are in a database."""

    def baskets(self) -> int:
        """How many it has filled."""
        with contextlib.closing(sqlite3.connect(self.folder / "shop.sqlite")) as database:
            return int(database.execute("SELECT count(*) FROM orders").fetchone()[0])

    async def most_at_once(self) -> int:
        """The most requests that were under way at the same time, since the last look at the log."""
        begun = {one.more["number"]: one for one in await self.arrived()}
        ended = {}
        for line in (self.folder / "shop.log").read_bytes().splitlines():
            one = json.loads(line)
            if "end" in one and one["number"] in begun:
                ended[one["number"]] = one["end"]
        events = [(one.at, 1) for one in begun.values()] + [(at, -1) for at in ended.values()]
        now = most = 0
        for _, step in sorted(events):
            now += step
            most = max(most, now)
        return most


@contextlib.asynccontextmanager
async def django_shop(folder: Path, *, threads: int = 8) -> AsyncIterator[DjangoShop]:
    """Django behind gunicorn's threads."""
    home = folder / "django-shop"
    home.mkdir(parents=True)
    shop = DjangoShop(free_port(), home)
    options = ("--bind", f"127.0.0.1:{shop.port}", "--worker-class", "gthread", "--threads", str(threads))
    command = (sys.executable, "-m", "gunicorn", *options, "--chdir", str(HERE), "--no-control-socket", "django_shop")
    async with running(command, shop.port, home, SHOP_FOLDER=str(home)):
        yield shop
