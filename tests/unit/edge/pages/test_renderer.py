"""The pages: their content in every state and language, custom templates, and that rendering is cheap."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import Template

from waitroom.edge.pages.event_notice import EventNotice
from waitroom.edge.pages.messages import (
    COUNTDOWN_LABELS,
    ERROR_MESSAGES,
    KIND_OF_TEXT,
    PLAN_MESSAGES,
    ROOM_MESSAGES,
    TEXTS,
    PageText,
)
from waitroom.edge.pages.renderer import PageKind, Pages, PageValues
from waitroom.errors import SettingsError
from waitroom.settings import RoomSettings

LANGUAGES = ("de", "en", "es", "fr", "hi", "id")
FULL = PageValues(
    position=1234,
    waiting=12345,
    eta=(240, 400),
    start_position=2000,
    poll_after=17,
    message="Payment by card only",
    updated_at=datetime(2026, 11, 27, 10, 42, 5, tzinfo=UTC),
    request_id="01JDK8Q2X4",
    remaining=77,
)
BARE = replace(FULL, position=None, waiting=None, eta=None, start_position=None, message="", remaining=None)
NOTICE = EventNotice(
    key="redmi scheduled queue",
    title="Redmi 1s <b>",
    plan="queue_random",
    next_ms=1_796_000_000_000,
    queue_opens_at=datetime(2026, 12, 1, 23, 33, 20, tzinfo=UTC),
    starts_at=datetime(2026, 12, 2, 0, 3, 20, tzinfo=UTC),
)
WITH_EVENT = replace(BARE, notice=NOTICE, now_ms=NOTICE.next_ms - 90_500, likely_sold_out=True)


def room(name: str = "shop", **settings: object) -> RoomSettings:
    return RoomSettings(name=name, upstream="http://127.0.0.1:3000", **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pages() -> Pages:
    return Pages([room()])


class Document(HTMLParser):
    """A page as far as the tests look into it: elements by their marks, texts, attributes."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "path", "circle", "rect"})

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self.open: list[tuple[str, str]] = []
        self.feed(page.decode("utf-8"))
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.elements.append((tag, given))
        if tag not in self.VOID:
            self.open.append((tag, given.get("data-waitroom", given.get("id", ""))))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for name in {name for _, name in self.open if name}:
            self.texts[name] = self.texts.get(name, "") + data

    def find(self, tag: str | None = None, **attributes: str) -> dict[str, str]:
        """Return the attributes of the only element with this tag and these attributes."""
        wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
        found = [given for name, given in self.elements if tag in (None, name) and wanted.items() <= given.items()]
        assert len(found) == 1, f"{tag} {wanted}: {found}"
        return found[0]


def every_room_page(pages: Pages) -> Iterator[bytes]:
    for text, kind in KIND_OF_TEXT.items():
        for language in LANGUAGES:
            for values in (FULL, BARE, WITH_EVENT):
                yield pages.room_page("shop", kind, language, replace(values, text=text))


def every_error_page(pages: Pages) -> Iterator[bytes]:
    for language in LANGUAGES:
        yield pages.left_page(language, "01JDK8Q2X4")
        for status in ERROR_MESSAGES:
            yield pages.error_page(status, language, "01JDK8Q2X4")


def hash_source(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def test_every_page_is_complete_small_and_self_contained(pages: Pages) -> None:
    for page in [*every_room_page(pages), *every_error_page(pages)]:
        document = Document(page)
        text = page.decode()
        assert len(page) < 24 * 1024
        assert not re.search("[\ufdd0-\ufddf]", text)
        assert "None" not in text
        assert len(re.findall("<h1", text)) == 1
        for _, attributes in document.elements:
            assert "style" not in attributes
            assert not any(name.startswith("on") for name in attributes)
            for name in ("src", "href", "action"):
                assert not re.match("(https?:)?//", attributes.get(name, ""))
        assert not re.search(r"@import|url\(", text)


@pytest.mark.parametrize("kind", ROOM_MESSAGES)
def test_each_state_has_its_text_in_the_visitors_language(pages: Pages, kind: PageKind) -> None:
    english = Document(pages.room_page("shop", kind, "en", FULL))
    assert english.find("html") == {"lang": "en", "dir": "ltr", "data-state": str(kind), "data-text": str(kind)}
    assert english.texts["heading"] == ROOM_MESSAGES[kind].heading
    assert english.texts["lead"] == ROOM_MESSAGES[kind].lead
    assert english.texts["title"].endswith(ROOM_MESSAGES[kind].heading)
    german = Document(pages.room_page("shop", kind, "de", FULL))
    assert german.find("html")["lang"] == "de"
    assert german.texts["heading"] != english.texts["heading"]
    assert german.texts["lead"] != english.texts["lead"]


@pytest.mark.parametrize("text", [text for text, kind in KIND_OF_TEXT.items() if text != kind.value])
def test_a_page_may_have_other_texts_than_its_kind(pages: Pages, text: PageText) -> None:
    kind = KIND_OF_TEXT[text]
    document = Document(pages.room_page("shop", kind, "en", replace(BARE, text=text)))
    assert document.find("html") == {"lang": "en", "dir": "ltr", "data-state": str(kind), "data-text": str(text)}
    assert (document.texts["heading"], document.texts["lead"]) == (TEXTS[text].heading, TEXTS[text].lead)
    script = document.find("script", id="waitroom")
    assert (script["data-state"], script["data-text"]) == (str(kind), str(text))
    assert f'"{text}":' not in document.texts["waitroom"], "the page has its own texts"
    assert f'"{kind}":' in document.texts["waitroom"]


def test_a_page_with_an_event(pages: Pages) -> None:
    document = Document(pages.room_page("shop", PageKind.CLOSED, "en", WITH_EVENT))
    assert "hidden" not in document.find(data_waitroom_if="event")
    assert document.texts["event_title"] == "Redmi 1s <b>"
    assert document.texts["countdown"] == "1 minute"
    assert document.texts["queue_opens"] == "Tuesday, December 1, 2026, 11:33\u202fPM UTC"
    assert document.find("time", data_waitroom="starts")["datetime"] == "2026-12-02T00:03:20Z"
    script = document.find("script", id="waitroom")
    assert script["data-event"] == "redmi scheduled queue"
    assert script["data-next"] == "2026-12-01T23:33:20Z"
    assert script["data-now"] == "1795999909500"
    german = pages.room_page("shop", PageKind.CLOSED, "de", WITH_EVENT).decode()
    assert "Dienstag, 1. Dezember 2026, 23:33 UTC" in german
    assert "Die Warteschlange öffnet in" in german


@pytest.mark.parametrize(
    ("left_ms", "text"), [(-1, "any moment now"), (0, "any moment now"), (1, "1 second"), (3 * 86_400_000, "3 days")]
)
def test_a_countdown_without_a_script(pages: Pages, left_ms: int, text: str) -> None:
    values = replace(WITH_EVENT, now_ms=NOTICE.next_ms - left_ms)
    assert Document(pages.room_page("shop", PageKind.CLOSED, "en", values)).texts["countdown"] == text


def test_every_plan_has_a_text_of_its_own(pages: Pages) -> None:
    assert len(set(PLAN_MESSAGES.values())) == len(PLAN_MESSAGES) == 5
    for plan, text in PLAN_MESSAGES.items():
        opens = NOTICE.queue_opens_at if plan.startswith("queue") else None
        values = replace(WITH_EVENT, notice=replace(NOTICE, plan=plan, queue_opens_at=opens))
        page = pages.room_page("shop", PageKind.PREQUEUE, "en", values).decode()
        assert text in page
        assert COUNTDOWN_LABELS[opens is not None] in page


def test_the_waiting_page_shows_the_visitors_numbers(pages: Pages) -> None:
    document = Document(pages.room_page("shop", PageKind.WAITING, "de", FULL))
    assert document.texts["position"] == "1.234"
    assert document.texts["waiting"] == "12.345"
    assert document.texts["remaining"] == "77"
    assert document.texts["eta"] == "etwa 4 bis 7 Minuten"
    assert document.texts["message"] == "Payment by card only"
    assert document.texts["title"].startswith("1.234 · ")
    assert document.texts["updated"] == "10:42:05 UTC"
    assert document.find("time", data_waitroom="updated")["datetime"] == "2026-11-27T10:42:05Z"
    bar = document.find(role="progressbar")
    assert (bar["aria-valuemin"], bar["aria-valuenow"], bar["aria-valuemax"]) == ("0", "38", "100")
    assert bar["aria-label"] == "Fortschritt"
    assert document.find("rect")["width"] == "38%"
    assert document.find("meta", http_equiv="refresh")["content"] == "17"
    script = document.find("script", id="waitroom")
    assert (script["data-room"], script["data-state"]) == ("shop", "waiting")
    assert (script["data-position"], script["data-start"], script["data-poll-after"]) == ("1234", "2000", "17")
    assert b"<code>01JDK8Q2X4</code>" in pages.room_page("shop", PageKind.WAITING, "de", FULL)
    hidden = {given["data-waitroom-if"] for _, given in document.elements if "hidden" in given}
    assert hidden == {"notice", "event", "event_title", "queue_opens", "likely_sold_out"}


def test_unknown_values_are_hidden(pages: Pages) -> None:
    document = Document(pages.room_page("shop", PageKind.WAITING, "en", BARE))
    assert document.texts["eta"] == "not known right now"
    assert document.texts["title"] == "You’re in the queue"
    for name in ("position", "waiting", "remaining", "message", "progress"):
        assert "hidden" in document.find(data_waitroom_if=name), name
    assert document.find("script", id="waitroom")["data-position"] == ""


@pytest.mark.parametrize(
    ("position", "start", "percent"),
    [(2000, 2000, "0"), (1, 2000, "99"), (1, 1, "0"), (1000, 2000, "50"), (2010, 2000, "0")],
)
def test_the_progress_bar_stays_within_its_bounds(pages: Pages, position: int, start: int, percent: str) -> None:
    values = replace(FULL, position=position, start_position=start)
    document = Document(pages.room_page("shop", PageKind.WAITING, "en", values))
    assert document.find(role="progressbar")["aria-valuenow"] == percent


def test_without_a_position_there_is_no_progress_bar(pages: Pages) -> None:
    document = Document(pages.room_page("shop", PageKind.WAITING, "en", replace(FULL, position=None)))
    assert "hidden" in document.find(data_waitroom_if="progress")


def test_the_noscript_refresh_is_inside_noscript(pages: Pages) -> None:
    page = pages.room_page("shop", PageKind.WAITING, "en", FULL).decode()
    assert '<noscript><meta http-equiv="refresh" content="17"></noscript>' in page


def test_leaving_works_with_a_plain_form(pages: Pages) -> None:
    forms = [
        given
        for tag, given in Document(pages.room_page("shop", PageKind.WAITING, "en", FULL)).elements
        if tag == "form"
    ]
    leaving = {"method": "post", "action": "/.waitroom/leave?room=shop"}
    assert forms.count(leaving) == 2, "where it is likely sold out, and below"


@pytest.mark.parametrize("language", ["en", "de", "es", "fr", "hi", "id"])
def test_more_time_works_with_a_plain_form(pages: Pages, language: str) -> None:
    page = pages.room_page("shop", PageKind.CALLED, language, FULL)
    form = Document(page).find("form", data_waitroom="more")
    assert (form["method"], form["action"]) == ("post", "/.waitroom/claim?room=shop&more=1")
    assert (b"I need more time" in page) is (language == "en")


def test_the_page_says_how_long_a_place_is_kept() -> None:
    pages = Pages([room("one", keep_place_seconds=1800), room("two", keep_place_seconds=7200)])
    assert "we’ll keep your place for 30 minutes" in pages.room_page("one", PageKind.WAITING, "en", FULL).decode()
    two = pages.room_page("two", PageKind.WAITING, "en", FULL)
    assert "we’ll keep your place for 2 hours" in two.decode()
    assert b"room=two" in two
    assert b"one" not in re.findall(rb'room[="]+(\w+)', two)


def test_times_are_shown_in_utc(pages: Pages) -> None:
    values = replace(FULL, updated_at=FULL.updated_at.astimezone(timezone(timedelta(hours=5, minutes=30))))
    document = Document(pages.room_page("shop", PageKind.WAITING, "en", values))
    assert document.texts["updated"] == "10:42:05 UTC"


def test_values_are_escaped(pages: Pages) -> None:
    evil = "</p><script>alert('1')</script>\"&"
    page = pages.room_page("shop", PageKind.WAITING, "en", replace(FULL, message=evil, request_id=evil))
    assert page.count(b"<script") == 2
    assert page.count(b"&lt;/p&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&#34;&amp;") == 2
    assert Document(page).texts["message"] == evil
    assert b"<script" not in pages.error_page(500, "en", evil)
    assert b"<script" not in pages.left_page("en", evil)


def test_a_template_is_rendered_once_for_all_visitors(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = Pages([room()])
    rendered = []
    render = Template.render

    def counted(self: Template, *args: object, **kwargs: object) -> str:
        rendered.append(self.name)
        return render(self, *args, **kwargs)

    monkeypatch.setattr(Template, "render", counted)
    first = pages.room_page("shop", PageKind.WAITING, "en", FULL)
    for position in range(1, 100):
        pages.room_page("shop", PageKind.WAITING, "en", replace(FULL, position=position, request_id=str(position)))
        pages.error_page(502, "en", str(position))
    assert rendered == ["waiting.html", "error.html"]
    assert pages.room_page("shop", PageKind.WAITING, "en", FULL) == first


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waitroom.edge.pages.renderer._MAX_CACHED_PAGES", 2)
    pages = Pages([room()])
    expected = [pages.room_page("shop", kind, "en", FULL) for kind in ROOM_MESSAGES]
    assert pages._room_page.cache_info().currsize == 2  # type: ignore[attr-defined]
    assert [pages.room_page("shop", kind, "en", FULL) for kind in ROOM_MESSAGES] == expected


def test_the_policy_allows_exactly_the_inline_parts(pages: Pages) -> None:
    rules = dict(rule.split(" ", 1) for rule in pages.csp.split("; "))
    scripts, styles = set(), set()
    for page in [*every_room_page(pages), *every_error_page(pages)]:
        scripts |= {hash_source(found) for found in re.findall("<script>(.*?)</script>", page.decode(), re.DOTALL)}
        styles |= {hash_source(found) for found in re.findall("<style>(.*?)</style>", page.decode(), re.DOTALL)}
    assert set(rules["script-src"].split()) == scripts
    assert set(rules["style-src"].split()) == styles
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert "https:" not in pages.csp


def test_scripts_and_styles_are_minified(pages: Pages) -> None:
    page = pages.room_page("shop", PageKind.WAITING, "en", FULL).decode()
    assert "Language.wait" not in page
    assert "/*" not in page
    assert not re.search("\n[ \n]", page)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("status", [400, 404, 408, 421, 429, 431, 500, 502, 503, 504])
def test_error_pages_are_friendly(pages: Pages, status: int, language: str) -> None:
    page = pages.error_page(status, language, "01JDK8Q2X4")
    document = Document(page)
    assert document.find("html")["lang"] == language
    assert b"<code>01JDK8Q2X4</code>" in page
    assert pages.error_text(status, language) == f"{document.texts['heading']}. {document.texts['lead']}"
    assert not re.search(r"HTTP|error|gateway|upstream|[45]\d\d", document.texts["lead"])
    assert document.find("a")["href"] == ("" if status in (408, 429, 500, 502, 503, 504) else "/")
    if language != "en":
        assert pages.error_text(status, language) != pages.error_text(status, "en")


def test_an_unlisted_status_gets_the_text_of_its_class(pages: Pages) -> None:
    assert pages.error_text(418, "en") == pages.error_text(400, "en")
    assert pages.error_text(599, "en") == pages.error_text(500, "en")


def test_the_page_after_leaving(pages: Pages) -> None:
    page = pages.left_page("fr", "01JDK8Q2X4")
    assert Document(page).texts["heading"] == "Vous avez quitté la file"
    assert b"refresh" not in page


# An operator's own template.

SCRIPT = '{% include "waitroom/script.html" %}'


def own(folder: Path, template: str, **others: str) -> RoomSettings:
    path = folder / "waiting.html"
    path.write_text(template)
    for name, text in others.items():
        (folder / f"{name}.html").write_text(text)
    return room(template=str(path))


def problems(*rooms: RoomSettings) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Pages(rooms)
    return [str(problem) for problem in caught.value.problems]


def test_a_custom_template_is_rendered(tmp_path: Path) -> None:
    template = "{% if message %}<i>{{ message }}</i>{% endif %}<b>{{ position or '?' }}</b>{{ room }}" + SCRIPT
    pages = Pages([own(tmp_path, template)])
    assert b"<i>Payment &amp; more</i><b>1,234</b>shop" in pages.room_page(
        "shop", PageKind.WAITING, "en", replace(FULL, message="Payment & more")
    )
    assert pages.room_page("shop", PageKind.PAUSED, "en", BARE).startswith(b"<b>?</b>shop")


def test_other_rooms_keep_the_default_page(tmp_path: Path) -> None:
    pages = Pages([own(tmp_path, "<b>mine</b>" + SCRIPT), room("other")])
    assert pages.room_page("shop", PageKind.WAITING, "en", FULL).startswith(b"<b>mine</b>")
    assert b"progressbar" in pages.room_page("other", PageKind.WAITING, "en", FULL)


def test_a_custom_template_may_extend_the_default_of_the_same_name(tmp_path: Path) -> None:
    template = (
        '{% extends "waitroom/waiting.html" %}{% block logo %}{% include "brand.html" %}{% endblock %}'
        "{% block head %}<style>.brand{color:red}</style>{% endblock %}"
    )
    pages = Pages([own(tmp_path, template, brand="<b class=brand>Lantern</b>")])
    page = pages.room_page("shop", PageKind.WAITING, "en", FULL)
    assert b"<b class=brand>Lantern</b>" in page
    assert b'class="door"' not in page
    assert hash_source(".brand{color:red}") in pages.csp


def test_the_policy_allows_a_custom_templates_inline_parts(tmp_path: Path) -> None:
    template = (
        "<style>b{color:red}</style>"
        "{% if kind == 'paused' and language == 'de' %}<script>paused()</script>{% endif %}"
        "{% if eta and not message %}<script>short()</script>{% endif %}"
        "<script type=text/x-data>data</script>"
        "<b style='color: &quot;red&quot;' onclick=hello()>x</b>" + SCRIPT
    )
    rules = dict(rule.split(" ", 1) for rule in Pages([own(tmp_path, template)]).csp.split("; "))
    assert hash_source("b{color:red}") in rules["style-src"]
    assert hash_source('color: "red"') in rules["style-src"]
    assert hash_source("paused()") in rules["script-src"]
    assert hash_source("short()") in rules["script-src"]
    assert hash_source("hello()") in rules["script-src"]
    assert hash_source("data") not in rules["script-src"]
    assert "'unsafe-hashes'" in rules["script-src"]
    assert "'unsafe-inline'" not in rules["script-src"]
    assert "https:" in rules["img-src"]
    assert "https:" not in rules["script-src"]


@pytest.mark.parametrize(
    ("template", "line", "what"),
    [
        ("a\nb\n{% if %}", 3, "Expected an expression"),
        ("a\n{{ postion }}", 2, "'postion' is undefined"),
        ("a\n\n{% if kind == 'sold_out' %}\n{{ postion }}{% endif %}", 4, "'postion' is undefined"),
        ("{% if language == 'hi' %}{{ oops }}{% endif %}", 1, "'oops' is undefined"),
        ("{% if eta and not message %}{{ oops }}{% endif %}", 1, "'oops' is undefined"),
        ("{% if position > 10 %}{% endif %}", 1, "'position' differs for every visitor"),
        ("{{ position|int }}", 1, "'position' differs for every visitor"),
        ("{{ message|upper }}", 1, "'message' differs for every visitor"),
        ("{{ 100 - progress }}", 1, "'progress' differs for every visitor"),
        ("{{ message|length }}", 1, "'message' differs for every visitor"),
        ("{% for c in message %}{{ c }}{% endfor %}", 1, "'message' differs for every visitor"),
        ("{{ position == 1 }}", 1, "'position' differs for every visitor"),
        ("{{ {position: 1} }}", 1, "'position' differs for every visitor"),
        ("{% if countdown and not queue_opens_at %}{{ oops }}{% endif %}", 1, "'oops' is undefined"),
        ("{% if text == 'ended' %}{{ oops }}{% endif %}", 1, "'oops' is undefined"),
        ("{{ countdown|upper }}", 1, "'countdown' differs for every visitor"),
        ("\n{{ 1 / 0 }}", 2, "division by zero"),
        ("\n{{ room.__class__.__mro__ }}", 2, "unsafe"),
        ("\n{% include 'absent.html' %}", 2, "template 'absent.html' not found"),
        ("\n{{ message.upper() }}", 2, "'message' differs for every visitor"),
    ],
)
def test_an_error_in_a_template_names_its_line(tmp_path: Path, template: str, line: int, what: str) -> None:
    found = problems(own(tmp_path, template + SCRIPT))
    assert found[0].startswith(f'rooms[0] "shop".template: {tmp_path / "waiting.html"}, line {line}: ')
    assert what in found[0]


def test_an_error_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    found = problems(own(tmp_path, "\n\n{% include 'part.html' %}" + SCRIPT, part="\n{{ oops }}"))
    assert f"{tmp_path / 'part.html'}, line 2: 'oops' is undefined." in found[0]
    found = problems(own(tmp_path, "\n\n{% include 'part.html' %}" + SCRIPT, part="\n{{ oops"))
    assert f"{tmp_path / 'part.html'}, line 2: " in found[0]


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = own(
        tmp_path / "a", "{% if kind == 'paused' %}{{ one }}{% endif %}\n{% if message %}{{ two }}{% endif %}" + SCRIPT
    )
    second = replace(own(tmp_path / "b", "{{ three }}" + SCRIPT), name="second")
    found = problems(first, room("fine"), second)
    assert len(found) == 3
    assert [name for text in found for name in ("'one'", "'two'", "'three'") if name in text] == [
        "'two'",
        "'one'",
        "'three'",
    ]
    assert found[2].startswith('rooms[2] "second".template: ')


def test_a_missing_or_unreadable_file_is_reported(tmp_path: Path) -> None:
    assert "not found" in problems(room(template=str(tmp_path / "absent.html")))[0]
    (tmp_path / "latin.html").write_bytes(b"\xe9t\xe9")
    assert "latin.html: 'utf-8' codec can't decode" in problems(room(template=str(tmp_path / "latin.html")))[0]


@pytest.mark.parametrize(
    ("template", "where"),
    [
        ("<script>var p = {{ position }}</script>", "a script element"),
        ("<style>b{width:{{ progress }}%}</style>", "a style element"),
        ("<b style='width:{{ progress }}%'>x</b>", "a style attribute"),
        ("<b onclick='go({{ position }})'>x</b>", "an onclick attribute"),
    ],
)
def test_a_value_in_a_script_or_style_is_refused(tmp_path: Path, template: str, where: str) -> None:
    (found,) = problems(own(tmp_path, template + SCRIPT))
    assert f"It uses a visitor's value in {where}" in found


def test_an_external_script_is_refused(tmp_path: Path) -> None:
    (found,) = problems(own(tmp_path, "<script src=https://cdn.example/x.js></script>" + SCRIPT))
    assert "loads a script from 'https://cdn.example/x.js'" in found


def test_a_page_that_never_polls_is_refused(tmp_path: Path) -> None:
    (found,) = problems(own(tmp_path, "hello"))
    assert "never polls for the visitor's turn" in found
    assert problems(own(tmp_path, '<head>{% include "waitroom/head.html" %}</head>hello')) == [found]
    assert problems(own(tmp_path, "{% if kind == 'waiting' %}" + SCRIPT + "{% endif %}")) == [found]
    Pages([own(tmp_path, '<meta http-equiv="Refresh" content="{{ poll_after }}">hello')])


def test_a_page_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (found,) = problems(own(tmp_path, "x" * 131072 + SCRIPT))
    assert "at most 128 KB are allowed" in found


def test_the_examples_in_the_documentation_work(tmp_path: Path) -> None:
    text = (Path(__file__).parents[4] / "docs" / "waiting-page.md").read_text()
    examples = re.findall(r"```jinja\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        pages = Pages([own(tmp_path, example)])
        for kind in ROOM_MESSAGES:
            document = Document(pages.room_page("shop", kind, "fr", FULL))
            assert document.texts["heading"] != ""
            forms = [given for tag, given in document.elements if tag == "form"]
            assert {"method": "post", "action": "/.waitroom/leave?room=shop"} in forms
            assert document.find("form", data_waitroom="more")["action"] == "/.waitroom/claim?room=shop&more=1"


def test_the_documentation_names_every_variable_and_block() -> None:
    text = (Path(__file__).parents[4] / "docs" / "waiting-page.md").read_text()
    templates = Path(__file__).parents[4] / "templates"
    blocks = set()
    for name in ("base.html", "waiting.html"):
        blocks |= set(re.findall(r"{% block (\w+)", (templates / name).read_text()))
    for name in sorted(blocks - {"title"}):
        assert f"| `{name}` |" in text, name
    variables = set()
    for path in templates.glob("*.html"):
        variables |= set(re.findall(r"{{ ([a-z_]+)(?: or [^}]*)? }}", path.read_text()))
    for name in sorted(variables):
        assert f"`{name}`" in text, name
