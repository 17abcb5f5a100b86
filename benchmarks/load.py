"""Load for the benchmarks: requests as browsers send them, by wrk, by h2load, and at a fixed rate."""

from __future__ import annotations

import gc
import http.client
import json
import random
import re
import select
import socket
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import cpu_seconds, program
from benchmarks.servers import Server

CONNECTIONS = 64
MARGIN_SECONDS = 60.0
LUA = Path(__file__).with_name("load.lua")
SHOP_COOKIES = (
    "_ga=GA1.1.1408262210.1767225600; _gid=GA1.1.77120418.1767225600; consent=necessary%2Cstatistics; "
    "sid=s%3A9f2c71d0b7be4c3c8a8e64a1c1f0d5b2.6c0e1b0e2a7d4f4f; cart=3b6f2a84-5d0f-4f43-9a1c-8f2f5b6f0a11; lang=en"
)
_COMMON = {
    "Host": "shop.example",
    "Connection": "keep-alive",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0 Safari/537.36",
    "sec-ch-ua": '"Not)A;Brand";v="8", "Chromium";v="138", "Google Chrome";v="138"',
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Linux"',
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9,de-DE;q=0.8,de;q=0.7",
    "Sec-Fetch-Site": "same-origin",
    "Referer": "https://shop.example/concerts/autumn?utm_source=newsletter&utm_campaign=presale",
}
NAVIGATION = {
    **_COMMON,
    "Upgrade-Insecure-Requests": "1",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-User": "?1",
    "Sec-Fetch-Dest": "document",
    "Cache-Control": "max-age=0",
}
POLL = {**_COMMON, "Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Priority": "u=1, i"}
POLL["Cache-Control"] = "no-cache"


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests to be sent repeatedly.

    Attributes:
        path: The target.
        headers: As a browser sends them, without cookies.
        cookies: The visitors' cookies; the shop's own are added.
        refused: Whether wrk counts the responses as errors, such as the waiting page's 503.
    """

    path: str
    headers: dict[str, str]
    cookies: Sequence[str] = ("",)
    refused: bool = False

    def cookie_line(self, cookie: str) -> str:
        """Returns the Cookie header of that visitor."""
        return f"{SHOP_COOKIES}; {cookie}" if cookie else SHOP_COOKIES

    def template(self) -> str:
        """Returns the request, with a placeholder for the cookies."""
        lines = [f"GET {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\r\n".join([*lines, "Cookie: @COOKIE@", "", ""])

    def request(self) -> bytes:
        """Returns the first visitor's request."""
        return self.template().replace("@COOKIE@", self.cookie_line(self.cookies[0])).encode()


@dataclass(frozen=True, slots=True)
class Figures:
    """One run against one server. Times in microseconds; ``cpu_us`` is the server's CPU time per request."""

    requests: int
    seconds: float
    bytes: int
    cpu_us: float
    p50_us: float
    p99_us: float

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    @property
    def cpu_ns_per_byte(self) -> float:
        """The server's CPU time in nanoseconds per byte of the responses."""
        return self.cpu_us * 1000 * self.requests / self.bytes if self.requests else self.cpu_us * 1000 / self.bytes


class Wrk:
    """wrk, always with one thread and the same number of connections.

    Args:
        folder: The directory for its input.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[int, tuple[Path, Path]] = {}
        self._kept: list[Workload] = []

    def run(self, server: Server, work: Workload, seconds: float, connections: int = CONNECTIONS) -> Figures:
        """Loads a server to its capacity.

        Raises:
            SystemExit: A response was missing or unexpected.
        """
        request, cookies = self._files(work)
        command = [program("wrk"), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
        command += ["-s", str(LUA), f"http://127.0.0.1:{server.port}{work.path}", "--", str(request), str(cookies)]
        before = cpu_seconds(server.pids)
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + MARGIN_SECONDS, check=False)
        spent = cpu_seconds(server.pids) - before
        found = re.search(r"^FIGURES (.*)$", done.stdout, re.MULTILINE)
        if found is None:
            raise SystemExit(f"unexpected output of wrk:\n{done.stdout}{done.stderr}")
        result = json.loads(found[1])
        if result["broken"] or result["refused"] != (result["requests"] if work.refused else 0):
            raise SystemExit(f"unexpected responses of {server.name} to {work.path} under load: {result}")
        return Figures(
            requests=result["requests"],
            seconds=result["seconds"],
            bytes=result["bytes"],
            # A download that wrk didn't see the end of still counts by its bytes.
            cpu_us=spent * 1e6 / max(1, result["requests"]),
            p50_us=result["p50_us"],
            p99_us=result["p99_us"],
        )

    def _files(self, work: Workload) -> tuple[Path, Path]:
        if id(work) not in self._written:
            self._kept.append(work)  # so that its id stays unique
            number = len(self._kept)
            request, cookies = self._folder / f"request-{number}", self._folder / f"cookies-{number}"
            request.write_bytes(work.template().encode())
            cookies.write_text("\n".join(work.cookie_line(cookie) for cookie in work.cookies) + "\n")
            self._written[id(work)] = request, cookies
        return self._written[id(work)]


def fetch(server: Server, work: Workload) -> tuple[int, bytes, list[str]]:
    """Sends one request on its own connection; returns the status, the body and the cookies set."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        cookie = {"Cookie": work.cookie_line(work.cookies[0])}
        headers = {name: value for name, value in work.headers.items() if name != "Accept-Encoding"}
        connection.request("GET", work.path, headers={**headers, **cookie})
        response = connection.getresponse()
        body = response.read()
        return response.status, body, response.headers.get_all("Set-Cookie") or []
    finally:
        connection.close()


def crowd(server: Server, work: Workload, visitors: int, connections: int) -> float:
    """Sends many requests at the same time by h2load; returns the seconds until the last response.

    Raises:
        SystemExit: A response was missing or unexpected.
    """
    # h2load adds these two itself.
    headers = {name: value for name, value in work.headers.items() if name not in ("Host", "Connection")}
    headers["Cookie"] = work.cookie_line("")
    command = [program("h2load"), "--h1", f"-n{visitors}", f"-c{connections}", "-t1", "-m1"]
    command += [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    command.append(f"http://127.0.0.1:{server.port}{work.path}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    finished = re.search(r"finished in ([\d.]+)(m?s)", done.stdout)
    statuses = re.search(r"status codes: (\d+) 2xx, \d+ 3xx, \d+ 4xx, (\d+) 5xx", done.stdout)
    if finished is None or statuses is None or int(statuses[2 if work.refused else 1]) != visitors:
        raise SystemExit(f"some newcomers got no valid response:\n{done.stdout[-1500:]}{done.stderr[-500:]}")
    return float(finished[1]) / (1000 if finished[2] == "ms" else 1)


def at_rate(server: Server, work: Workload, per_second: float, seconds: float) -> tuple[float, float]:
    """Sends requests at a fixed average rate, regardless of responses; returns p50 and p99 in microseconds.

    The gaps are those of independent visitors (exponential), and the same for every server. Times run from when a
    request was due.
    """
    gaps = random.Random(60542)
    due = 0.0
    plan: deque[float] = deque()
    while due < seconds:
        due += gaps.expovariate(per_second)
        plan.append(due)
    request = work.request()
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(CONNECTIONS)]
    everyone = list(idle)
    for one in idle:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    busy: dict[socket.socket, float] = {}
    took: list[float] = []
    gc.disable()
    try:
        began = time.perf_counter() + 0.05
        while plan or busy:
            now = time.perf_counter() - began
            if plan and plan[0] <= now and idle:
                one = idle.pop()
                busy[one] = plan.popleft()
                one.sendall(request)
            wait = plan[0] - (time.perf_counter() - began) if plan and idle else 10.0
            readable, _, _ = select.select(list(busy), (), (), max(0.0, wait))
            if not readable and not plan:
                raise SystemExit(f"{server.name} left a request unanswered for 10 s")
            for one in readable:
                _small_answer(server, one)
                took.append(time.perf_counter() - began - busy.pop(one))
                idle.append(one)
    finally:
        gc.enable()
        for one in everyone:
            one.close()
    took.sort()
    return took[len(took) // 2] * 1e6, took[len(took) * 99 // 100] * 1e6


def _small_answer(server: Server, one: socket.socket) -> None:
    answer = one.recv(65536)
    while True:
        head, found, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if found and (length is None or not answer.startswith(b"HTTP/1.1 200 ")):
            raise SystemExit(f"unexpected response of {server.name}: {answer[:300]!r}")
        if found and length is not None and len(body) >= int(length[1]):
            return
        more = one.recv(65536)
        if not more:
            raise SystemExit(f"{server.name} closed a connection within a response")
        answer += more


def open_idle(server: Server, work: Workload, count: int) -> list[socket.socket]:
    """Opens idle connections, after one request on each."""
    request = work.request()
    made = []
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        one.sendall(request)
        _small_answer(server, one)
        made.append(one)
    return made
