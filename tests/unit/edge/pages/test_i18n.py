"""Languages: negotiation, numbers and time spans, and complete catalogues."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from hypothesis import given
from hypothesis import strategies as st
from jinja2.ext import babel_extract

from waitroom.edge.pages.i18n import Languages
from waitroom.edge.pages.messages import (
    COUNTDOWN_LABELS,
    ERROR_MESSAGES,
    LEFT_MESSAGE,
    PLAN_MESSAGES,
    SCRIPT_MESSAGES,
    TEXTS,
)

TEMPLATES = Path(__file__).parents[4] / "templates"
CATALOGUES = sorted((TEMPLATES / "locale").glob("*.po"))
LANGUAGES = Languages(TEMPLATES / "locale")
CODES = sorted(LANGUAGES.by_code)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "en"),
        (b"", "en"),
        (b"de", "de"),
        (b"de-CH,de;q=0.9,en;q=0.8", "de"),
        (b"en;q=0.5, fr-CA;q=0.9", "fr"),
        (b"ES-mx", "es"),
        (b"zh-Hant-TW,de-DE-1996;q=0.5,en;q=0.4", "de"),
        (b"in-ID", "id"),
        (b"xx,yy;q=0.9", "en"),
        (b"xx,de;q=0.1", "de"),
        (b"de;q=0,en", "en"),
        (b"de;q=0", "en"),
        (b"*", "en"),
        (b"fr;q=0.5,de;q=0.5", "fr"),
        (b"de;q=abc,fr;q=0.2", "fr"),
        (b"de;q=7,fr;q=0.2", "fr"),
        (b"de;q=nan,fr;q=0.2", "fr"),
        (b"de;level=1", "en"),
        (b"de ; q=0.4 , fr ; q=0.7", "fr"),
        (b";;;,,,=\xff\x00de", "en"),
        (b"x" * 300 + b",de", "en"),
    ],
)
def test_the_language_is_negotiated(header: bytes | None, code: str) -> None:
    assert LANGUAGES.negotiate(header) == code


def test_the_cache_of_headers_is_bounded() -> None:
    languages = Languages(TEMPLATES / "locale")
    for number in range(3000):
        languages.negotiate(b"de;q=0.%d" % number + b" " * 10_000)
    information = languages._negotiate.cache_info()  # type: ignore[attr-defined]
    assert information.currsize == information.maxsize <= 1024


@given(st.sampled_from(CODES), st.integers(0, 10**12))
def test_numbers_are_formatted_like_babels(code: str, value: int) -> None:
    assert LANGUAGES.by_code[code].number(value) == format_decimal(value, locale=code)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (45, "45 seconds"),
        (60, "1 minute"),
        (90, "1 minute"),
        (1800, "30 minutes"),
        (3600, "1 hour"),
        (5400, "90 minutes"),
        (7200, "2 hours"),
        (86400, "24 hours"),
        (100_000, "27 hours"),
        (172_799, "47 hours"),
        (172_800, "2 days"),
        (400_000, "4 days"),
    ],
)
def test_spans_are_rounded_down(seconds: int, text: str) -> None:
    assert LANGUAGES.by_code["en"].span(seconds) == text


WAITS = [
    (0, 0, "less than a minute"),
    (20, 59, "less than a minute"),
    (0, 60, "up to 1 minute"),
    (59, 61, "up to 2 minutes"),
    (60, 60, "about 1 minute"),
    (240, 400, "about 4 to 7 minutes"),
    (600, 1200, "about 10 to 20 minutes"),
    (601, 1201, "about 10 to 25 minutes"),
    (239, 1300, "up to 25 minutes"),
    (4000, 6000, "about 65 to 100 minutes"),
    (3600, 7200, "about 60 to 120 minutes"),
    (3600, 7201, "about 1 to 3 hours"),
    (2400, 9000, "about 40 minutes to 3 hours"),
    (100, 9000, "up to 3 hours"),
    (10_800, 10_800, "about 3 hours"),
    (36_000, 90_000, "about 10 to 25 hours"),
]


@pytest.mark.parametrize(("low", "high", "text"), WAITS)
def test_waits_are_rounded_outwards(low: int, high: int, text: str) -> None:
    assert LANGUAGES.by_code["en"].wait(low, high) == text


@given(st.sampled_from(CODES), st.integers(0, 10**6), st.integers(0, 10**6))
def test_every_wait_has_a_text(code: str, low: int, more: int) -> None:
    text = LANGUAGES.by_code[code].wait(low, low + more)
    assert text
    assert "{" not in text


def sentences() -> set[str]:
    found = {*SCRIPT_MESSAGES.values(), *PLAN_MESSAGES.values(), *COUNTDOWN_LABELS.values()}
    for message in (*TEXTS.values(), *ERROR_MESSAGES.values(), LEFT_MESSAGE):
        found |= {message.heading, message.lead}
    for path in TEMPLATES.glob("*.html"):
        with path.open("rb") as file:
            found |= {str(message) for _, _, message, _ in babel_extract(file, ["_"], [], {})}
    return found


def test_the_documented_languages_exist() -> None:
    assert set(CODES) >= {"en", "de", "fr", "es", "id"}


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)
def test_a_catalogue_is_complete(path: Path) -> None:
    with path.open("rb") as file:
        catalogue = read_po(file, locale=path.stem, abort_invalid=True)
    translated = {str(message.id): str(message.string) for message in catalogue if message.id}
    assert set(translated) == sentences()
    for source, target in translated.items():
        assert target.strip(), source
        assert sorted(re.findall(r"{\w+}", target)) == sorted(re.findall(r"{\w+}", source)), source
    assert not any(message.fuzzy for message in catalogue if message.id)


def test_french_punctuation_never_starts_a_line() -> None:
    with (TEMPLATES / "locale" / "fr.po").open("rb") as file:
        catalogue = read_po(file, locale="fr", abort_invalid=True)
    assert [message.string for message in catalogue if re.search(" [:;?!»]|« ", str(message.string))] == []


def test_untranslated_texts_are_english(tmp_path: Path) -> None:
    (tmp_path / "nl.po").write_text(
        'msgid ""\nmsgstr ""\n\nmsgid "Sold out"\nmsgstr "Uitverkocht"\n\nmsgid "Enter the shop"\nmsgstr ""\n'
    )
    dutch = Languages(tmp_path).by_code["nl"]
    assert dutch.gettext("Sold out") == "Uitverkocht"
    assert dutch.gettext("Enter the shop") == "Enter the shop"
    assert dutch.gettext("Try again") == "Try again"
