"""A Django shop for gunicorn: baskets and orders in a database, and a log of what it was asked."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import path, re_path

FOLDER = Path(os.environ["SHOP_FOLDER"])
SLOW_SECONDS = 0.3

settings.configure(
    SECRET_KEY="a shop of the tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[f"{__name__}.logged"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": FOLDER / "shop.sqlite",
            "OPTIONS": {"timeout": 30},
        }
    },
)

_lock = threading.Lock()
_numbers = count()


def _write(line: dict[str, Any]) -> None:
    with _lock, (FOLDER / "shop.log").open("a") as log:
        log.write(json.dumps(line) + "\n")


def logged(answer: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Writes down when a request begins and when it ends."""

    def middleware(request: HttpRequest) -> HttpResponse:
        number = next(_numbers)
        _write(
            {
                "at": time.time(),
                "number": number,
                "method": request.method,
                "target": request.get_full_path(),
                "session": request.headers.get("Waitroom-Session", ""),
                "length": len(request.body),
            }
        )
        try:
            return answer(request)
        finally:
            _write({"end": time.time(), "number": number})

    return middleware


def basket(request: HttpRequest) -> HttpResponse:
    """Fills a basket, whatever the method, as a view does that nobody told which methods it is for."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO orders (made_at, method) VALUES (%s, %s)", [time.time(), request.method])
    return HttpResponse("ordered\n")


def slow(request: HttpRequest) -> HttpResponse:
    """Takes a while, as a search does."""
    time.sleep(SLOW_SECONDS)
    return HttpResponse("found\n")


def released(request: HttpRequest) -> HttpResponse:
    """The thank-you page: the visitor is done."""
    return HttpResponse("<p>Thank you.", headers={"Waitroom-Command": "release", "Cache-Control": "no-store"})


def sale(request: HttpRequest) -> HttpResponse:
    """The sale, without a basket."""
    return HttpResponse("ordered\n")


def page(request: HttpRequest, rest: str = "") -> HttpResponse:
    """Anything else."""
    return HttpResponse("<p>The shop.", headers={"Cache-Control": "no-store"})


urlpatterns = [
    path("api/order", basket),
    path("slow", slow),
    path("thanks", released),
    # Without an end, as many patterns are: whatever begins like the sale is the sale.
    re_path(r"(?i)^/*(?:index\.php/+)?sale(?![a-z-])", sale),
    path("", page),
    path("<path:rest>", page),
]
# Django has no view for a method alone; CSRF is a middleware that is not there, as for a token API.
application = get_wsgi_application()
with connection.cursor() as _cursor:
    _cursor.execute("CREATE TABLE IF NOT EXISTS orders (made_at REAL, method TEXT)")
