"""Validators: normalized values and errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic_core import PydanticCustomError

from waitroom.settings import validators
from waitroom.settings.validators import Address


@pytest.mark.parametrize(
    ("check", "value", "normal"),
    [
        (validators.room_name, "a" * 32, "a" * 32),
        (validators.room_name, "0_-", "0_-"),
        (validators.host_pattern, "Shop.Example.com.", "shop.example.com"),
        (validators.host_pattern, "*.Example.com", "*.example.com"),
        (validators.host_pattern, "localhost", "localhost"),
        (validators.host_pattern, "xn--bcher-kva.example", "xn--bcher-kva.example"),
        (validators.path_prefix, "/", "/"),
        (validators.path_prefix, "/Ünder/%20", "/Ünder/%20"),
        (validators.http_method, "m-search", "M-SEARCH"),
        (validators.listen_address, "localhost:65535", "localhost:65535"),
        (validators.listen_address, "[::1]:0", "[::1]:0"),
        (validators.upstream_url, "HTTP://Shop/", "http://shop:80"),
        (validators.upstream_url, "http://[FD00::5]", "http://[fd00::5]:80"),
        (validators.upstream_url, "http://shop:65535", "http://shop:65535"),
        (validators.upstream_url, "HTTPS://Shop", "https://shop:443"),
        (validators.upstream_url, "https://shop:80", "https://shop:80"),
        (validators.upstream_url, "unix:///run/Shop.sock", "unix:///run/Shop.sock"),
        (validators.server_name, "Shop.Example.com.", "shop.example.com"),
        (validators.url_path, "/", "/"),
        (validators.url_path, "/a%20b?c=d&e", "/a%20b?c=d&e"),
        (validators.trusted_network, "10.0.0.0/8", "10.0.0.0/8"),
        (validators.trusted_network, "FD00::1", "fd00::1"),
        (validators.signing_secret, "s" * 16, "s" * 16),
        (validators.file_path, "a b", "a b"),
    ],
)
def test_normalized_values_are_stable(check: Callable[[str], str], value: str, normal: str) -> None:
    assert check(value) == normal
    assert check(normal) == normal


@pytest.mark.parametrize(
    ("check", "value", "fix"),
    [
        (validators.room_name, "", "1 to 32"),
        (validators.room_name, "-a", "1 to 32"),
        (validators.room_name, "shop\n", "1 to 32"),
        (validators.host_pattern, "", "shop.example.com"),
        (validators.host_pattern, "*", "*.example.com"),
        (validators.host_pattern, "a..b", "shop.example.com"),
        (validators.host_pattern, "-a.example", "shop.example.com"),
        (validators.host_pattern, "a-.example", "shop.example.com"),
        (validators.path_prefix, "", '"/"'),
        (validators.path_prefix, "/a b", "spaces"),
        (validators.path_prefix, "/a#b", "query"),
        (validators.http_method, "", "POST"),
        (validators.listen_address, "8080", "0.0.0.0:8080"),
        (validators.listen_address, "65535", "0.0.0.0:65535"),
        (validators.listen_address, "65536", "0.0.0.0:8080"),
        (validators.listen_address, "", "0.0.0.0:8080"),
        (validators.listen_address, "[::1]", "0.0.0.0:8080"),
        (validators.listen_address, "[::1:80", "0.0.0.0:8080"),
        (validators.listen_address, "::1]:80", "0.0.0.0:8080"),
        (validators.listen_address, "[localhost]:80", "0.0.0.0:8080"),
        (validators.listen_address, "http://127.0.0.1:80", "0.0.0.0:8080"),
        (validators.listen_address, "10.0.0:80", "0.0.0.0:8080"),
        (validators.upstream_url, "", "http://127.0.0.1:3000"),
        (validators.upstream_url, "http://", "http://127.0.0.1:3000"),
        (validators.upstream_url, "http://shop:", "http://127.0.0.1:3000"),
        (validators.upstream_url, "http://shöp:80", "http://127.0.0.1:3000"),
        (validators.upstream_url, "http://shop:80\n", "http://127.0.0.1:3000"),
        (validators.upstream_url, "http://shop:80?", '"http://shop:80"'),
        (validators.upstream_url, "localhost:3000", '"http://localhost:3000"'),
        (validators.upstream_url, "https://", "http://127.0.0.1:3000"),
        (validators.upstream_url, "https://shop/x", '"https://shop:443"'),
        (validators.server_name, "*.shop.example.com", "shop.example.com"),
        (validators.server_name, "", "shop.example.com"),
        (validators.url_path, "", "/healthz"),
        (validators.url_path, "/ü", "/healthz"),
        (validators.url_path, "/a#b", "/healthz"),
        (validators.url_path, "/a\r\nX: y", "/healthz"),
        (validators.upstream_url, "unix:/run/shop.sock", "unix:///run/shop.sock"),
        (validators.upstream_url, "unix://shop.sock", "unix:///run/shop.sock"),
        (validators.upstream_url, "unix:///run/shop.sock?x", "unix:///run/shop.sock"),
        (validators.upstream_url, "unix:///", "unix:///run/shop.sock"),
        (validators.trusted_network, "", "10.0.0.0/8"),
        (validators.trusted_network, "10.0.0.0/33", "10.0.0.0/8"),
        (validators.signing_secret, "s" * 15, "waitroom secret"),
        (validators.file_path, " ", "remove the key"),
        (validators.file_path, "a\0b", "remove the key"),
    ],
)
def test_errors_suggest_a_fix(check: Callable[[str], str], value: str, fix: str) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        check(value)
    context = caught.value.context
    assert context is not None
    assert fix in context["fix"]
    assert context["what"].endswith(".")


@pytest.mark.parametrize(
    ("upstream", "address"),
    [
        ("http://shop:80", Address("shop", 80)),
        ("http://[fd00::5]:3000", Address("fd00::5", 3000)),
        ("https://shop:443", Address("shop", 443)),
        ("unix:///run/shop.sock", None),
    ],
)
def test_addresses_of_upstreams(upstream: str, address: Address | None) -> None:
    assert validators.upstream_address(upstream) == address
