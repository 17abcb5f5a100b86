"""Real clients and real servers with the gateway in between: what one sends is what the other gets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import httpx
import jwt
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from support.gateway_process import Gateway, eventually, needs, room
from support.ports import free_port
from support.third_party import Client, Got, clients, gunicorn, nginx, running, uvicorn
from support.visitor_client import Visitor

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SHOP_SECRET = "a-secret-of-the-shops-0123456789-abcdefgh"
PORTS = {name: free_port() for name in ("uvicorn", "gunicorn", "nginx", "demo")}
ROOMS = [room(name, upstream=f"http://127.0.0.1:{port}", shop_secret=SHOP_SECRET) for name, port in PORTS.items()]
ROOMS[-1] |= {"bypass": [{"paths": ["/favicon.svg"]}], "paths": ["/basket"], "health_path": "/", "health_seconds": 0.5}
SETTINGS = {"workers": 1}
EVERY_BYTE = bytes(range(256)) * 8192
STREAM = b"".join(b"%04d\n" % number * 50 for number in range(1000))

every_client = pytest.mark.parametrize("client", ["curl", "aiohttp", "httpx"])
every_app = pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def servers(folder: Path) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(uvicorn(PORTS["uvicorn"], folder, SHOP_SECRET))
        await stack.enter_async_context(gunicorn(PORTS["gunicorn"], folder, SHOP_SECRET))
        await stack.enter_async_context(nginx(PORTS["nginx"], folder))
        await stack.enter_async_context(demo_shop(PORTS["demo"], folder))
        yield


def demo_shop(port: int, folder: Path) -> contextlib.AbstractAsyncContextManager[None]:
    home = folder / "demo"
    home.mkdir()
    (home / "secrets").write_text(f"another-{SHOP_SECRET}\n{SHOP_SECRET}\n")
    options = ("--port", str(port), "--data", str(home / "shop.sqlite"), "--room", "demo")
    command = (sys.executable, "-m", "waitroom.drill.shop.app", *options, "--secrets-file", str(home / "secrets"))
    return running(command, port, home)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def programs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Client]]:
    async with clients(tmp_path_factory.mktemp("clients")) as programs:
        yield programs


class Inside:
    """Somebody inside, with one of the clients."""

    def __init__(self, client: Client, gateway: Gateway, server: str, pass_: str) -> None:
        self._client = client
        self.base = gateway.url
        self.headers = {"Host": f"{server}.test", "Waitroom-Pass": pass_}

    async def ask(self, method: str, path: str, body: bytes | list[bytes] | None = None, **headers: str) -> Got:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._client.ask(method, self.base + path, self.headers | named, body)


GoesIn = Callable[[str, str], Awaitable[Inside]]


@pytest.fixture
def goes_in(gateway: Gateway, programs: dict[str, Client]) -> GoesIn:
    async def enter(client: str, server: str) -> Inside:
        joined = await Visitor(gateway, server).call("join")
        return Inside(programs[client], gateway, server, joined.json["pass"])

    return enter


@every_client
@every_app
async def test_a_request_and_its_response(goes_in: GoesIn, client: str, server: str) -> None:
    inside = await goes_in(client, server)

    got = await inside.ask("GET", "/a%20b;c/d?x=1&x=2&y=%C3%A9", X_Mine="b,  c", Cookie="a=1; b=2")

    assert got.status == 200
    seen = json.loads(got.body)
    lines = dict(map(tuple, seen["headers"]))
    assert (seen["method"], seen["target"], seen["query"]) == ("GET", "/a%20b;c/d", "x=1&x=2&y=%C3%A9")
    assert (lines["host"], lines["cookie"], lines["x-mine"]) == (f"{server}.test", "a=1; b=2", "b,  c")
    assert (lines["x-forwarded-for"], lines["x-forwarded-proto"]) == ("127.0.0.1", "http")
    assert lines["waitroom-room"] == server
    assert "waitroom-pass" not in lines
    assert "content-length" not in lines
    assert [line for line in got.all("set-cookie") if "waitroom" not in line] == [
        f"same={number}; Path=/{number}" for number in range(3)
    ]
    assert len(got.all("date")) == len(got.all("server")) == 1


@every_client
@every_app
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_bodies_with_a_length(goes_in: GoesIn, client: str, server: str, method: str) -> None:
    inside = await goes_in(client, server)

    for body in (b"x", EVERY_BYTE):
        got = await inside.ask(method, "/body", body, Content_Type="application/octet-stream")
        seen = json.loads(got.body)
        lines = dict(map(tuple, seen["headers"]))
        assert (seen["method"], seen["size"], seen["sha256"]) == (method, len(body), hashlib.sha256(body).hexdigest())
        assert (lines["content-length"], lines["content-type"]) == (str(len(body)), "application/octet-stream")
        assert "transfer-encoding" not in lines


@every_client
@every_app
async def test_bodies_in_chunks(goes_in: GoesIn, client: str, server: str) -> None:
    inside = await goes_in(client, server)

    got = await inside.ask("POST", "/body", [EVERY_BYTE[:100], b"x", EVERY_BYTE])

    seen = json.loads(got.body)
    lines = dict(map(tuple, seen["headers"]))
    assert seen["sha256"] == hashlib.sha256(EVERY_BYTE[:100] + b"x" + EVERY_BYTE).hexdigest()
    assert lines["transfer-encoding"] == "chunked"
    assert "content-length" not in lines


@every_client
@every_app
async def test_responses_without_a_length(goes_in: GoesIn, client: str, server: str) -> None:
    inside = await goes_in(client, server)

    got = await inside.ask("GET", "/stream")

    assert (got.status, got.body) == (200, STREAM)
    assert (got.all("transfer-encoding"), got.all("content-length")) == (["chunked"], [])


@every_client
@every_app
async def test_head_requests(goes_in: GoesIn, client: str, server: str) -> None:
    inside = await goes_in(client, server)

    for _ in range(3):
        got = await inside.ask("HEAD", "/head")
        assert (got.status, got.body) == (200, b"")
        assert int(got.all("content-length")[0]) > 100
    # Nothing of it is taken for the next answer.
    assert json.loads((await inside.ask("GET", "/behind")).body)["target"] == "/behind"


@every_client
async def test_a_form_of_a_wsgi_shop(goes_in: GoesIn, client: str) -> None:
    """It wants a length, its cookie, its token, and an origin that is its own host."""
    inside = await goes_in(client, "gunicorn")
    page = await inside.ask("GET", "/form")
    token = page.body.decode().partition('value="')[2].partition('"')[0]
    cookie = page.all("set-cookie")[0].partition(";")[0]
    form = urlencode({"csrf": token, "item": "phone"}).encode()
    right = {"Cookie": cookie, "Origin": "http://gunicorn.test", "Content_Type": "application/x-www-form-urlencoded"}

    bought = await inside.ask("POST", "/form", form, **right)

    assert (bought.status, bought.all("location")) == (303, ["/thanks?for=phone"])
    # These checks are ones.
    assert (await inside.ask("POST", "/form", [form], **right)).status == 411
    assert (await inside.ask("POST", "/form", form, **right | {"Origin": "http://elsewhere.test"})).status == 403
    assert (await inside.ask("POST", "/form", form, **right | {"Cookie": "a=1"})).status == 403


@every_client
async def test_a_shop_that_closes_after_each_response(goes_in: GoesIn, client: str) -> None:
    inside = await goes_in(client, "gunicorn")

    for number in range(20):
        got = await inside.ask("GET", f"/{number}")
        assert json.loads(got.body)["target"] == f"/{number}"
        assert "close" not in got.all("connection"), "that is between the shop and us"


async def test_concurrent_requests_to_a_shop_that_closes(goes_in: GoesIn) -> None:
    inside = await goes_in("aiohttp", "gunicorn")

    answers = await asyncio.gather(*(inside.ask("POST", f"/{number}", b"%d" % number) for number in range(200)))

    assert [json.loads(got.body)["target"] for got in answers] == [f"/{number}" for number in range(200)]


@every_client
async def test_files_of_nginx(goes_in: GoesIn, client: str, folder: Path) -> None:
    inside = await goes_in(client, "nginx")
    big = (folder / "nginx" / "shop" / "big.bin").read_bytes()

    page = await inside.ask("GET", "/page.html")
    assert (page.status, page.body) == (200, b"<p>The shop.</p>" * 100)
    assert page.all("content-type") == ["text/html"]
    etag = page.all("etag")[0]

    same = await inside.ask("GET", "/page.html", If_None_Match=etag)
    assert (same.status, same.body, same.all("etag")) == (304, b"", [etag])
    part = await inside.ask("GET", "/big.bin", Range="bytes=1000-1999")
    assert (part.status, part.body) == (206, big[1000:2000])
    assert part.all("content-range") == [f"bytes 1000-1999/{len(big)}"]
    parts = await inside.ask("GET", "/big.bin", Range="bytes=0-9,20-29")
    assert (parts.status, parts.all("content-type")[0][:20]) == (206, "multipart/byteranges")
    none = await inside.ask("GET", "/big.bin", Range=f"bytes={len(big)}-")
    assert (none.status, none.all("content-range")) == (416, [f"bytes */{len(big)}"])
    assert (await inside.ask("GET", "/big.bin")).body == big
    small = await inside.ask("GET", "/page.html", Accept_Encoding="gzip")
    assert (small.all("content-encoding"), gzip.decompress(small.body)) == (["gzip"], page.body)
    assert small.all("transfer-encoding") == ["chunked"]
    head = await inside.ask("HEAD", "/big.bin")
    assert (head.status, head.all("content-length")) == (200, [str(len(big))])


@every_client
async def test_other_responses_of_nginx(goes_in: GoesIn, client: str) -> None:
    inside = await goes_in(client, "nginx")

    for path, status, location in (
        ("/none", 204, []),
        ("/moved", 301, ["/elsewhere"]),
        ("/folder", 301, ["/folder/"]),
        ("/missing", 404, []),
        ("/%2e%2e/above", 400, []),
    ):
        got = await inside.ask("GET", path)
        assert (got.status, got.all("location")) == (status, location), path
    assert (await inside.ask("POST", "/page.html", b"x")).status == 405
    assert (await inside.ask("POST", "/small", b"x" * 11)).status == 413
    assert (await inside.ask("POST", "/small", EVERY_BYTE)).status == 413


async def test_a_shop_that_closes_after_every_third_response(goes_in: GoesIn) -> None:
    inside = await goes_in("aiohttp", "nginx")

    answers = await asyncio.gather(*(inside.ask("GET", "/page.html") for _ in range(300)))

    assert {(got.status, len(got.body)) for got in answers} == {(200, 1600)}


@pytest.mark.parametrize("library", ["aiohttp", "httpx"])
async def test_events_come_one_by_one(goes_in: GoesIn, library: str) -> None:
    """The shop sends an event only when it was asked for it, which is when the last one has come."""
    inside = await goes_in(library, "uvicorn")
    other = await goes_in("curl", "uvicorn")
    heard = []

    async def listen(lines: AsyncIterator[bytes | str]) -> None:
        async for line in lines:
            text = line.decode() if isinstance(line, bytes) else line
            if text.startswith("id: "):
                heard.append(int(text[4:]))
                assert (await other.ask("POST", "/next", b"")).status == 200

    async with asyncio.timeout(30):
        url = inside.base + "/events"
        if library == "aiohttp":
            async with aiohttp.ClientSession() as http, http.get(url, headers=inside.headers) as got:
                await listen(got.content)
        else:
            async with (
                httpx.AsyncClient(trust_env=False) as http,
                http.stream("GET", url, headers=inside.headers) as got,
            ):
                await listen(got.aiter_lines())

    assert heard == [0, 1, 2]


async def test_the_shop_notices_that_a_client_disconnects(goes_in: GoesIn) -> None:
    inside, other = await goes_in("curl", "uvicorn"), await goes_in("aiohttp", "uvicorn")
    process = await asyncio.create_subprocess_exec(
        *(needs("curl"), "--silent", "--no-buffer", inside.base + "/endless?curl"),
        *(part for name, value in inside.headers.items() for part in ("--header", f"{name}: {value}")),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readexactly(5) == b"begun"
    assert "curl" not in json.loads((await other.ask("GET", "/")).body)["gone"]

    process.kill()
    await process.wait()

    async def heard() -> bool:
        return "curl" in json.loads((await other.ask("GET", "/")).body)["gone"]

    await eventually(heard)


async def test_curl_with_cookies_is_admitted_and_stays_admitted(gateway: Gateway, tmp_path: Path) -> None:
    """With a jar for cookies, as a script of somebody's would do it."""
    jar = tmp_path / "jar"
    options = ("--silent", "--fail", "--cookie", str(jar), "--cookie-jar", str(jar), "--header", "Accept: text/html")
    sessions = []
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(
            *(needs("curl"), *options, "--resolve", f"uvicorn.test:{gateway.port}:127.0.0.1"),
            f"http://uvicorn.test:{gateway.port}/",
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        lines = dict(map(tuple, json.loads(out)["headers"]))
        sessions.append(lines["waitroom-session"])
        assert "waitroom" not in lines.get("cookie", "")

    assert len(set(sessions)) == 1


PIPELINE = """
init = function(args)
  local one = wrk.format("GET", "/wrk")
  piped = string.rep(one, 8)
end
request = function() return piped end
"""


@pytest.mark.parametrize("pipelined", [False, True])
async def test_wrk_sees_no_errors(goes_in: GoesIn, tmp_path: Path, pipelined: bool) -> None:
    inside = await goes_in("curl", "uvicorn")
    script = tmp_path / "pipeline.lua"
    script.write_text(PIPELINE if pipelined else "")
    process = await asyncio.create_subprocess_exec(
        *(needs("wrk"), "-t1", "-c16", "-d3s", "--timeout", "30s", "-s", str(script)),
        *(part for name, value in inside.headers.items() for part in ("-H", f"{name}: {value}")),
        inside.base + "/wrk",
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()

    said = out.decode()
    assert process.returncode == 0, said
    assert "Socket errors" not in said, said
    assert "Non-2xx" not in said, said
    assert int(said.partition(" requests in ")[0].split()[-1]) > 100, said


async def directly(server: str, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, str]:
    """What the shop itself answers at its own port."""
    url = f"http://127.0.0.1:{PORTS[server]}{path}"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession() as http, http.request(method, url, headers=named) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn", "demo"])
async def test_a_shop_refuses_requests_that_bypass_the_gateway(server: str) -> None:
    for method, path in (("GET", "/"), ("POST", "/basket"), ("GET", "/favicon.svg"), ("OPTIONS", "/")):
        status, text = await directly(server, path, method)
        assert (status, text) == (403, "Refused: the request didn't come through the waiting room (no proof).\n")
    forged = jwt.encode({"iss": "waitroom", "aud": server, "via": "session"}, "x" * 32, "HS256")
    status, text = await directly(server, Waitroom_Proof=forged, Waitroom_Session="5a", Waitroom_Room=server)
    assert (status, "signed with another secret" in text) == (403, True)
    for garbage in (jwt.encode({}, None, "none"), "x" * 4000, "a.b.c"):
        assert (await directly(server, Waitroom_Proof=garbage))[0] == 403
    assert (await directly(server, method="HEAD")) == (403, "")


@every_app
async def test_a_shop_leaves_paths_alone(server: str) -> None:
    assert (await directly(server, "/open"))[0] == 200
    assert (await directly(server, "/open/x"))[0] == 403


async def test_a_shop_refuses_websockets_that_bypass_the_gateway(gateway: Gateway) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"ws://127.0.0.1:{PORTS['uvicorn']}/chat", proxy=None)
    assert caught.value.response.status_code == 403
    pass_ = (await Visitor(gateway, "uvicorn").call("join")).json["pass"]
    url, headers = f"ws://uvicorn.test:{gateway.port}/chat", {"Waitroom-Pass": pass_}
    async with connect(url, host="127.0.0.1", port=gateway.port, proxy=None, additional_headers=headers) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"


async def test_all_requests_of_the_gateway_reach_a_shop_that_requires_proofs(gateway: Gateway) -> None:
    visitor = Visitor(gateway, "demo")
    assert (await visitor.goes_in("/basket")).status == 200
    assert (await visitor.navigate("/checkout")).status in (200, 303)
    stranger = Visitor(gateway, "demo")
    for path in ("/favicon.svg", "/", "/basket"):  # bypassed, not covered, and without a pass
        assert (await stranger.fetch(path, Accept="*/*")).status == 200, path
    before = json.loads((await directly("demo", "/stats"))[1])["requests"]

    async def checked() -> bool:
        """Health checks arrive too: the shop counts only what it accepts."""
        return json.loads((await directly("demo", "/stats"))[1])["requests"] > before

    await eventually(checked)
    assert "upstream unhealthy" not in gateway.log
