"""The client of the admin API: requests, and the handling of any response."""

from __future__ import annotations

import socket

import pytest
from aiohttp import web

from support.fake_admin_api import bob, raw_server
from waitroom.cli.api_client import AdminClient, AdminError, NoResponseError, RejectedError, checked_token

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def test_a_room_is_read_with_its_tag(there):
    answer = AdminClient(there.url + "/").room("sale")
    assert answer.tag == '"7"'
    assert answer.raw == there.rooms["sale"]
    room = answer.value
    assert (room.name, room.waiting, room.wait_seconds.newcomer) == ("sale", 12_345, (2400, 2700))
    assert room.shop is not None
    assert room.shop.p95_seconds == 0.412


def test_a_room_without_a_state_is_read(there):
    there.rooms["sale"] = {"name": "sale", "upstream": "", "store_up": False}
    (room,) = AdminClient(there.url).rooms().value.rooms
    assert (room.state, room.store_up, room.version) == (None, False, None)


def test_the_token_is_read_for_each_call(there):
    tokens = iter(["first", "second"])
    client = AdminClient(there.url, lambda: next(tokens))
    there.token = "first"
    client.rooms()
    there.token = "second"
    client.rooms()
    assert [one.headers["Authorization"] for one in there.asked] == ["Bearer first", "Bearer second"]


def test_without_a_token_none_is_sent(there):
    AdminClient(there.url).rooms()
    assert "Authorization" not in there.asked[0].headers


@pytest.mark.parametrize("token", ["", "two words", "line\nend", "line\r\nX-More: 1", "caf\u00e9", "\x00"])
def test_an_invalid_token_is_neither_sent_nor_quoted(there, token):
    with pytest.raises(AdminError) as raised:
        AdminClient(there.url, lambda: token).rooms()
    assert not there.asked
    assert not token or token not in str(raised.value)
    with pytest.raises(AdminError):
        checked_token(token)


def test_a_change_requires_the_version_that_was_read(there):
    client = AdminClient(there.url)
    after = client.change("sale", {"rate_per_minute": 600.0}, '"7"')
    assert (after.value.rate_per_minute, after.tag) == (600, '"8"')
    with pytest.raises(RejectedError) as raised:
        client.change("sale", {"rate_per_minute": 900.0}, '"7"')
    assert raised.value.status == 412
    assert raised.value.room is not None
    assert raised.value.room.version == 8
    assert there.rooms["sale"]["rate_per_minute"] == 600


def test_a_preview_changes_nothing(there):
    effect = AdminClient(there.url).preview("sale", {"rate_per_minute": 600}, '"7"').value.effect
    assert effect.summary == "Newcomers wait half as long."
    assert effect.after["newcomer"] == (1200, 1400)
    assert there.rooms["sale"]["version"] == 7


def test_names_are_quoted(there):
    with pytest.raises(RejectedError):
        AdminClient(there.url).room("a/../b?c")
    assert there.asked[0].path == "/api/v1/rooms/a/../b?c"


def test_a_prefix_of_the_address_is_kept(there):
    with pytest.raises(RejectedError):
        AdminClient(f"{there.url}/admin/").rooms()
    assert there.asked[0].path == "/admin/api/v1/rooms"


def test_empty_notes_are_left_out(there):
    there.free_slots = 1
    client = AdminClient(there.url)
    client.admit("sale", "5.x.y", "")
    client.end_session("sale", "1f", "asked on the phone")
    assert [one.body for one in there.asked] == [
        {"ticket": "5.x.y"},
        {"session": "1f", "note": "asked on the phone"},
    ]


def test_a_rejection_has_its_reasons(there):
    errors = {"rate_per_minute": "is too much", "max_active": ["odd"]}
    there.instead = lambda _: there.problem(422, "Two fields can't be used.", errors=errors)
    with pytest.raises(RejectedError) as raised:
        AdminClient(there.url, lambda: "t").room("sale")
    refused = raised.value
    assert (refused.status, refused.detail, refused.had_token) == (422, "Two fields can't be used.", True)
    assert refused.errors == {"rate_per_minute": "is too much", "max_active": '["odd"]'}


@pytest.mark.parametrize("body", ["[]", "{", '{"detail": 5, "errors": "no", "room": {"name": 1}}'])
def test_a_rejection_without_reasons_is_reported(there, body):
    there.instead = lambda _: web.Response(status=503, text=body, content_type="application/problem+json")
    with pytest.raises(RejectedError, match="status 503") as raised:
        AdminClient(there.url).room("sale")
    assert raised.value.room is None


def test_plain_text_errors_of_the_listener_are_reported(there):
    there.instead = lambda _: web.Response(status=421, text="Unknown host 'x'.\nMore.")
    with pytest.raises(NoResponseError, match=r"421, Unknown host 'x'\.$"):
        AdminClient(there.url).rooms()


def test_redirects_are_not_followed(there):
    headers = {"Location": f"{there.url}/elsewhere"}
    there.instead = lambda _: web.Response(status=302, headers=headers)
    with pytest.raises(NoResponseError, match="302"):
        AdminClient(there.url, lambda: "secret").rooms()
    assert len(there.asked) == 1


def test_proxies_of_the_environment_are_not_used(there, monkeypatch, unused_tcp_port):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_tcp_port}")
    assert AdminClient(there.url, lambda: "secret").rooms().value.rooms


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"",
        OK + b"Content-Length: 2\r\n\r\n[]",
        OK + b"Content-Length: 5\r\n\r\nwhat?",
        OK + b'Content-Length: 99\r\n\r\n{"rooms": []}',
        OK + b'Transfer-Encoding: chunked\r\n\r\nd\r\n{"rooms": []}\r\n',
        OK + b"Content-Length: 2\r\n\r\n{}",
        OK + b'Content-Length: 26\r\n\r\n{"rooms": [{"waiting": 1}]}',
        OK + b'Content-Length: 39\r\n\r\n{"rooms": [{"name":"a","waiting":"x"}]}',
        OK + b"Content-Length: 200000\r\n\r\n" + b"[" * 200_000,
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<p/>",
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<p/>",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
    ],
)
def test_an_invalid_response_counts_as_no_response(answer):
    with raw_server(answer) as url, pytest.raises(NoResponseError) as raised:
        AdminClient(url).rooms()
    assert url in str(raised.value)
    assert not raised.value.maybe_done, "a query changes nothing"


def test_a_too_large_response_counts_as_no_response(monkeypatch):
    monkeypatch.setattr("waitroom.cli.api_client.MAX_BYTES", 1000)
    body = b'{"rooms": [], "more": "' + b"x" * 1000 + b'"}'
    with raw_server(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body) as url, pytest.raises(NoResponseError):
        AdminClient(url).rooms()


def test_a_refused_connection_counts_as_no_response(unused_tcp_port):
    with pytest.raises(NoResponseError, match="Connection refused") as raised:
        AdminClient(f"http://127.0.0.1:{unused_tcp_port}").change("sale", {}, '"1"')
    assert not raised.value.maybe_done, "it was never sent"


@pytest.mark.parametrize("begun", [b"", OK, OK + b"Content-Length: 9\r\n\r\n{"])
def test_a_stalled_response_times_out(begun):
    with raw_server(begun, hang=True) as url, pytest.raises(NoResponseError, match=r"within 0\.2 s"):
        AdminClient(url, seconds=0.2).rooms()


def test_a_change_without_a_response_may_have_been_made():
    with raw_server(b"", hang=True) as url, pytest.raises(NoResponseError) as raised:
        AdminClient(url, seconds=0.2).change("sale", {"state": "paused"}, '"1"')
    assert raised.value.maybe_done


def test_a_server_that_does_not_accept_the_connection():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), pytest.raises(NoResponseError):
            AdminClient(f"http://127.0.0.1:{port}", seconds=0.2).rooms()


def test_the_export_yields_lines(there):
    lines = list(AdminClient(there.url).export())
    assert len(lines) == 3
    assert all(line.endswith(b"}\n") for line in lines)


@pytest.mark.parametrize(
    "end", [b"Content-Length: 20\r\n\r\n{}\n{}\n{", b"Transfer-Encoding: chunked\r\n\r\n7\r\n{}\n{}\n{\r\n"]
)
def test_a_truncated_export_is_an_error(end):
    """Also at the border of a chunk, where http.client's own readline sees only an end."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\n" + end
    got: list[bytes] = []
    with raw_server(answer) as url, pytest.raises(NoResponseError):
        got.extend(AdminClient(url).export())
    assert got == [b"{}\n", b"{}\n"]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "127.0.0.1:8081",
        "http://",
        "http://host:port",
        "http://[::1",
        "http://ann:secret@host",
        "http://host/?token=x",
        "http://host/#x",
        "",
    ],
)
def test_invalid_urls_are_refused(url):
    with pytest.raises(ValueError, match=r"isn't (a|the) URL|must be only"):
        AdminClient(url)


def test_history_diff_audit_and_verdict(there):
    client = AdminClient(there.url)
    bob(there.rooms["sale"], rate_per_minute=900)
    assert client.history("sale", 60).value.samples[1].admitted == 25
    assert there.asked[-1].query == {"seconds": "60"}
    diff = client.diff("sale").value
    assert (diff.differs, diff.running["rate_per_minute"]) == (("rate_per_minute",), 900)
    assert [one.id for one in client.audit(2).value.entries] == ["1002-0", "1001-0"]
    assert [one.id for one in client.audit(2, "1001-0").value.entries] == ["1000-0"]
    assert client.verify().value.intact
