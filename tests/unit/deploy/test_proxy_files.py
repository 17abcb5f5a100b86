"""The configurations in deploy/ that no test can run are well-formed, and each file has its page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FILES = sorted(path for folder in ("apisix", "istio", "kubernetes") for path in (ROOT / "deploy" / folder).iterdir())
# The pattern of the Gateway API for the path of an external authorization.
AUTH_PATH = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+")
# Without these a check could not tell a page from a fetch, and would find neither ticket nor pass.
READ = {"accept", "cookie", "sec-fetch-mode", "waitroom-pass", "waitroom-ticket", "user-agent"}
GIVEN = {"waitroom-session", "waitroom-room", "waitroom-proof"}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "deploy" / name).read_text(encoding="utf-8")))


def lower(names: list[str]) -> set[str]:
    return {name.lower() for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_file_is_yaml(path: Path) -> None:
    for document in documents(f"{path.parent.name}/{path.name}"):
        assert document


def test_every_file_is_in_the_table_of_proxies() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "proxies").glob("*.md"))
    files = [path for path in (ROOT / "deploy").glob("*/*") if path.is_file()]
    assert files
    assert not [path for path in files if path.name not in pages]


def test_apisix_asks_and_hands_on() -> None:
    (config,) = documents("apisix/apisix.yaml")
    routes = {route["id"]: route for route in config["routes"]}
    (plugins,) = config["plugin_configs"]
    auth = plugins["plugins"]["forward-auth"]
    assert lower(auth["request_headers"]) >= READ
    assert lower(auth["upstream_headers"]) == GIVEN
    assert {"content-type", "location", "retry-after", "set-cookie"} <= lower(auth["client_headers"])
    assert auth["status_on_error"] >= 500
    assert routes["waitroom-check"]["priority"] > routes["waitroom"]["priority"] > routes["shop-websockets"]["priority"]
    for name in ("shop", "shop-websockets"):
        assert routes[name]["plugin_config_id"] == plugins["id"]
    # A tunnel of HTTP/2 would carry requests past the check.
    assert [route["id"] for route in config["routes"] if route.get("enable_websocket")] == ["shop-websockets"]
    assert routes["shop-websockets"]["vars"] == [["http_upgrade", "~~", "(?i)^websocket$"]]
    upstreams = {one["id"] for one in config["upstreams"]}
    assert {route["upstream_id"] for route in config["routes"] if "upstream_id" in route} == upstreams


def test_the_gateway_api_asks_and_hands_on() -> None:
    (route,) = documents("kubernetes/forward-auth.yaml")
    filters = [one for rule in route["spec"]["rules"] for one in rule.get("filters", ())]
    (auth,) = [one["externalAuth"] for one in filters if one["type"] == "ExternalAuth"]
    assert AUTH_PATH.fullmatch(auth["http"]["path"])
    assert lower(auth["http"]["allowedHeaders"]) >= READ
    assert lower(auth["http"]["allowedResponseHeaders"]) == GIVEN
    # Those that move a request to another path, method or host, as in the plain mode.
    (plain,) = documents("kubernetes/plain.yaml")
    removed = [
        set(one["requestHeaderModifier"]["remove"])
        for spec in (plain["spec"], route["spec"])
        for rule in spec["rules"]
        for one in rule.get("filters", ())
        if one["type"] == "RequestHeaderModifier"
    ]
    assert len(removed) == 3
    assert all(one == removed[0] for one in removed)


def test_istio_asks_and_hands_on() -> None:
    (mesh,) = documents("istio/mesh-config.yaml")
    (provider,) = mesh["spec"]["meshConfig"]["extensionProviders"]
    policy = documents("istio/authorization-policy.yaml")[0]["spec"]
    assert policy["provider"]["name"] == provider["name"]
    auth = provider["envoyExtAuthzHttp"]
    sent = lower(auth["includeRequestHeadersInCheck"])
    assert not [name for name in READ if name not in sent and f"{name[:4]}*" not in sent]
    assert lower(auth["headersToUpstreamOnAllow"]) == GIVEN
    assert {"content-type", "location", "retry-after", "set-cookie"} <= lower(auth["headersToDownstreamOnDeny"])
    assert auth["failOpen"] is False
    # The routes match a Host header with any port; the policy compares the whole header.
    (operation,) = [rule["operation"] for rule in policy["rules"][0]["to"]]
    hosts = documents("istio/authorization-policy.yaml")[1]["spec"]["hosts"]
    assert set(operation["hosts"]) == {name for host in hosts for name in (host, f"{host}:*")}
