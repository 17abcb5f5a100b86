"""Real proxies in front of a gateway, with the files in deploy/ in which only addresses and paths are replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from support.certificates import make_pair
from support.gateway_process import Gateway, eventually, needs
from support.nginx import nginx_command
from support.ports import free_port
from support.upstreams.server import Shop
from support.visitor_client import Answer, Visitor

DEPLOY = Path(__file__).parents[2] / "deploy"
HOST = "shop.example"
# Waitroom, and the shop.
GATEWAY, SHOP = "127.0.0.1:8080", "127.0.0.1:3000"

REDIRECTS = (301, 302, 303, 307, 308)
MOST_HOPS = 6
END_SECONDS = 5.0  # then it is killed

# In order: the folder, the addresses and paths to replace. Returns the command.
Start = Callable[[Path, str, dict[str, str]], list[str]]


@dataclass(frozen=True)
class Front:
    """A proxy in one of its modes.

    Attributes:
        name: The proxy's folder in deploy/.
        mode: ``plain`` (it forwards everything to the gateway) or ``forward-auth`` (it asks the gateway, and serves the
            shop itself).
    """

    name: str
    mode: str

    def __str__(self) -> str:
        return f"{self.name}-{self.mode}"

    @property
    def asks(self) -> bool:
        return self.mode == "forward-auth"


FRONTS = [
    Front(name, mode)
    for name in ("nginx", "haproxy", "caddy", "traefik", "envoy")
    for mode in ("plain", "forward-auth")
]


def deployed(name: str, replaced: dict[str, str], *, without: Sequence[str] = ()) -> str:
    """A file in deploy/ with these replacements. Each must be there, apart from those in ``without``."""
    text = (DEPLOY / name).read_text()
    for old, new in replaced.items():
        assert old in text or old in without, f"{old} isn't in {name}"
        text = text.replace(old, new)
    return text


def _nginx(folder: Path, mode: str, replaced: dict[str, str]) -> list[str]:
    text = deployed(f"nginx/{mode}.conf", {"listen 443": f"listen 127.0.0.1:{replaced['443']}", **_common(replaced)})
    return nginx_command(folder, text)


def _haproxy(folder: Path, mode: str, replaced: dict[str, str]) -> list[str]:
    named = {"bind :443": f"bind 127.0.0.1:{replaced['443']}", **_common(replaced, "pem")}
    if mode == "forward-auth":
        lua = folder / "waitroom.lua"
        lua.write_text(deployed("haproxy/waitroom.lua", {GATEWAY: replaced[GATEWAY]}))
        named["/etc/haproxy/waitroom.lua"] = str(lua)
    config = folder / "haproxy.cfg"
    config.write_text(deployed(f"haproxy/{mode}.cfg", named))
    return [needs("haproxy"), "-db", "-f", str(config)]


def _caddy(folder: Path, mode: str, replaced: dict[str, str]) -> list[str]:
    named = {f"\n{HOST} {{": f"\nhttps://{HOST}:{replaced['443']} {{\n\tbind 127.0.0.1", **_common(replaced)}
    # It would take the ports of the admin API and of HTTP.
    options = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"
    config = folder / "Caddyfile"
    config.write_text(options + deployed(f"caddy/{mode}.Caddyfile", named))
    return [needs("caddy"), "run", "--adapter", "caddyfile", "--config", str(config)]


def _traefik(folder: Path, mode: str, replaced: dict[str, str]) -> list[str]:
    dynamic, static = folder / "waitroom.yml", folder / "traefik.yml"
    dynamic.write_text(deployed(f"traefik/{mode}.yml", _common(replaced)))
    static.write_text(
        deployed(
            "traefik/traefik.yml",
            {'":443"': f'"127.0.0.1:{replaced["443"]}"', "/etc/traefik/waitroom.yml": str(dynamic)},
        )
    )
    return [needs("traefik"), f"--configFile={static}"]


def _envoy(folder: Path, mode: str, replaced: dict[str, str]) -> list[str]:
    def address(value: str) -> str:
        host, _, port = value.partition(":")
        return f"{{address: {host}, port_value: {port}}}"

    named = {address(f"0.0.0.0:{443}"): address(f"127.0.0.1:{replaced['443']}"), **_common(replaced)}
    for one in (GATEWAY, SHOP):
        if one in named:
            named = {address(one): address(named[one])} | named
    config = folder / "envoy.yaml"
    config.write_text(deployed(f"envoy/{mode}.yaml", named, without=(GATEWAY, SHOP)))
    return [needs("envoy"), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]


STARTS: dict[str, Start] = {
    "nginx": _nginx,
    "haproxy": _haproxy,
    "caddy": _caddy,
    "traefik": _traefik,
    "envoy": _envoy,
}


def _common(replaced: dict[str, str], *names: str) -> dict[str, str]:
    """The replacements in all files: the gateway's and the shop's address, and the certificate's files."""
    files = [f"/etc/ssl/{HOST}.{ending}" for ending in names or ("pem", "key")]
    return {name: replaced[name] for name in (GATEWAY, SHOP, *files) if name in replaced}


class _Here(AbstractResolver):
    """Finds every host on this machine."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=2, proto=0, flags=0)]

    async def close(self) -> None:
        pass


@dataclass
class Proxy:
    """A proxy that runs."""

    front: Front
    port: int
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


@dataclass
class Proxies:
    """Starts each proxy when it is first needed; all run until the end of the block.

    Attributes:
        http: A client for browsers: it keeps connections, trusts the certificate and keeps no cookies.
    """

    folder: Path
    gateway: Gateway
    shop: Shop
    http: aiohttp.ClientSession
    tls: ssl.SSLContext
    certificate: Path
    key: Path
    _stack: contextlib.AsyncExitStack
    _running: dict[Front, Proxy] = field(default_factory=dict)

    async def get(self, front: Front) -> Proxy:
        if front not in self._running:
            self._running[front] = await self._stack.enter_async_context(self._started(front))
        return self._running[front]

    @contextlib.asynccontextmanager
    async def _started(self, front: Front) -> AsyncIterator[Proxy]:
        folder = self.folder / str(front)
        folder.mkdir(exist_ok=True)
        port = free_port()
        replaced = {
            "443": str(port),
            GATEWAY: self.gateway.url.removeprefix("http://"),
            f"/etc/ssl/{HOST}.pem": str(self.certificate),
            f"/etc/ssl/{HOST}.key": str(self.key),
        }
        if front.asks:
            replaced[SHOP] = self.shop.address.removeprefix("http://")
        proxy = Proxy(front, port, folder)
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                # Tied to this process, so that it ends even where a test run is killed.
                *(sys.executable, "-m", "waitroom.process.pdeathsig", str(os.getpid())),
                *STARTS[front.name](folder, front.mode, replaced),
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "GOMAXPROCS": "1"},
            )
        try:

            async def serves() -> bool:
                """Whether it has read its routes, too: some listen before that."""
                if process.returncode is not None:
                    pytest.fail(f"{front} ended with {process.returncode}:\n{proxy.log}")
                async with self.http.get(f"https://{HOST}:{port}/.waitroom/status") as answer:
                    return answer.status == 200

            await eventually(serves)
            yield proxy
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                async with asyncio.timeout(END_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


@contextlib.asynccontextmanager
async def running_proxies(folder: Path, gateway: Gateway, shop: Shop) -> AsyncIterator[Proxies]:
    """Proxies in front of a gateway and a shop."""
    certificate, key = make_pair(folder, "proxy", host=HOST)
    tls = ssl.create_default_context(cafile=certificate)
    certificate.write_text(certificate.read_text() + key.read_text())  # HAProxy reads both from one file
    connector = aiohttp.TCPConnector(ssl=tls, resolver=_Here(), limit=0)
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=timeout,
            auto_decompress=False,
            max_line_size=16384,
            max_field_size=16384,
        ) as http,
        contextlib.AsyncExitStack() as stack,
    ):
        yield Proxies(folder, gateway, shop, http, tls, certificate, key, stack)


@dataclass
class Behind(Visitor):
    """A visitor whom a proxy meets first, with a browser that follows redirects."""

    proxy: Proxy | None = None

    @property
    def origin(self) -> str:
        assert self.proxy is not None
        return f"https://{HOST}:{self.proxy.port}"

    async def follow(self, path: str, *, keeps_cookies: bool = True) -> Answer:
        """Goes to a page, and wherever that leads.

        Raises:
            AssertionError: it leads on and on.
        """
        for _ in range(MOST_HOPS):
            answer = await self.navigate(path)
            if not keeps_cookies:
                self.cookies.clear()
            if answer.status not in REDIRECTS:
                return answer
            parts = urlsplit(answer.headers["Location"])
            path = parts.path + (f"?{parts.query}" if parts.query else "")
        raise AssertionError(f"still redirected: {path}")

    async def goes_in(self, path: str = "/") -> Answer:
        """Comes once and is let in, at the address that was asked for."""
        answer = await self.follow(path)
        assert answer.status == 200, answer
        assert self.pass_cookie in self.cookies
        return answer
