"""The examples of docs/shop.md in Python, run as they are written."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import django
import httpx
import pytest
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

from support.room_proofs import SECRET, proof

PAGE = Path(__file__).parents[3] / "docs" / "shop.md"

urlpatterns = [
    path("session", lambda request: HttpResponse(request.META["waitroom"].get("sub", "none"))),
    path("healthz", lambda request: HttpResponse("ok")),
]


def example(monkeypatch: pytest.MonkeyPatch, framework: str) -> dict[str, Any]:
    """What the example of a framework defines."""
    monkeypatch.setenv("SHOP_SECRETS", f"next-{SECRET} {SECRET}")
    found = re.search(rf"^\*\*{framework}.*?^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    assert found is not None
    names: dict[str, Any] = {"__name__": f"example_{framework.lower()}"}
    exec(compile(found[1], str(PAGE), "exec", dont_inherit=True), names)
    return names


@pytest.fixture(params=["Flask", "FastAPI", "Django"])
def shop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "Django" and not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="for tests")
        django.setup()
    names = example(monkeypatch, request.param)
    if request.param == "FastAPI":
        return httpx.ASGITransport(names["app"])
    return httpx.WSGITransport(names["app" if request.param == "Flask" else "application"])


async def fetched(shop: httpx.ASGITransport, path: str, headers: dict[str, str]) -> httpx.Response:
    async with httpx.AsyncClient(transport=shop, base_url="http://shop.test") as http:
        return await http.get(path, headers=headers)


def ask(shop: Any, path: str, value: str = "") -> tuple[int, str]:
    headers = {"Waitroom-Proof": value} if value else {}
    if isinstance(shop, httpx.ASGITransport):
        answer = asyncio.run(fetched(shop, path, headers))
    else:
        with httpx.Client(transport=shop, base_url="http://shop.test") as http:
            answer = http.get(path, headers=headers)
    return answer.status_code, answer.text


def test_an_example_refuses_what_bypasses_the_gateway(shop: Any) -> None:
    assert ask(shop, "/session", proof("5a", room="shop")) == (200, "5a")
    assert ask(shop, "/session", proof(room="shop")) == (200, "none")
    assert ask(shop, "/session", proof(room="shop", secret=f"next-{SECRET}")) == (200, "none")
    for value, why in (
        ("", "no proof"),
        (proof(room="other"), "another room"),
        (proof(room="shop", secret=SECRET[::-1]), "another secret"),
        (proof(room="shop", age=600), "expired"),
    ):
        status, text = ask(shop, "/session", value)
        assert status == 403
        assert why in text
    assert ask(shop, "/healthz") == (200, "ok")
    assert ask(shop, "/nowhere")[0] == 403
