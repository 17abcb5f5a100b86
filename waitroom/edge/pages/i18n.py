"""The languages of the pages: language negotiation, catalogues, and the format of numbers and times.

Everything here is created once at start and only read afterwards; per-request caches are bounded.
"""

# mypyc: compile

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from babel import Locale, negotiate_locale
from babel.dates import format_date, format_time
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from babel.units import format_unit

from waitroom.wait_range import wait_range

DEFAULT_LANGUAGE = "en"

# Longer than any browser's header: the rest isn't read, so that no client can fill the cache with it.
_MAX_HEADER_BYTES = 256
_MAX_CACHED_HEADERS = 1024

# The codes that old browsers and Java still send, and their current equivalents.
_OLD_CODES = {"in": "id"}


class Language:
    """One language: its sentences, and its format of numbers and time spans.

    Attributes:
        code: The language's code, such as ``de``.
        direction: ``ltr`` or ``rtl``.
    """

    def __init__(self, code: str, catalogue: Mapping[str, str]) -> None:
        locale = Locale.parse(code)
        self.code = code
        self.direction = locale.text_direction
        self._catalogue = catalogue
        self._group: str = locale.number_symbols["latn"]["group"]
        # Babel takes 30 us for a number, and no two visitors have the same position: only its rules are used.
        _, self._later_groups = locale.decimal_formats[None].grouping
        if format_decimal(12345678, locale=locale) != self.number(12345678):
            raise ValueError(f"numbers in {code!r} are written in a way that is not known here")

    def gettext(self, sentence: str) -> str:
        """Return an English sentence in this language, or unchanged if the catalogue lacks it."""
        return self._catalogue.get(sentence, sentence)

    def number(self, value: int) -> str:
        """Return a whole number, zero or more, with the language's group separators."""
        if self._later_groups == 3:
            return f"{value:,}".replace(",", self._group)
        digits = str(value)
        groups = [digits[-3:]]
        rest, size = digits[:-3], self._later_groups
        while rest:
            groups.append(rest[-size:])
            rest = rest[:-size]
        return self._group.join(reversed(groups))

    def span(self, seconds: int) -> str:
        """Return a time span in words, such as "90 minutes"; never more than ``seconds``."""
        minutes = seconds // 60
        if minutes < 1:
            return self._unit(seconds, "second")
        if minutes >= 2880:
            return self._unit(minutes // 1440, "day")
        if minutes % 60 == 0 or minutes > 600:
            return self._unit(minutes // 60, "hour")
        return self._unit(minutes, "minute")

    def wait(self, low: int, high: int) -> str:
        """Return the range of a wait in words, rounded outwards, such as "about 4 to 7 minutes".

        The waiting page's script does the same (``formatWait`` in waiting.js); a test compares the two.

        Args:
            low: The shortest expected wait, in seconds.
            high: The longest, in seconds; at least ``low``.
        """
        _ = self.gettext
        found = wait_range(low, high)
        if found is None:
            return _("less than a minute")
        longest = self._unit(found.high, found.high_unit)
        if found.low == 0:
            return _("up to {high}").format(high=longest)
        shortest = str(found.low)
        if found.low_unit != found.high_unit:
            shortest = self._unit(found.low, found.low_unit)
        elif found.low == found.high:
            return _("about {high}").format(high=longest)
        return _("about {low} to {high}").format(low=shortest, high=longest)

    def time(self, at: datetime) -> str:
        """Return a UTC time in words, such as "Saturday, December 12, 2026, 3:30 AM UTC"."""
        date, time = format_date(at, "full", self.code), format_time(at, "short", UTC, self.code)
        return f"{date}, {time} UTC"

    def _unit(self, count: int, unit: str) -> str:
        return format_unit(count, f"duration-{unit}", length="long", locale=self.code)


class Languages:
    """All languages with catalogues, and the choice among them.

    Args:
        folder: The folder of the catalogues, one ``<code>.po`` per language. English needs none: it is the source.
    """

    def __init__(self, folder: Path) -> None:
        found = {DEFAULT_LANGUAGE: Language(DEFAULT_LANGUAGE, {})}
        for path in sorted(folder.glob("*.po")):
            found[path.stem] = Language(path.stem, _read_catalogue(path))
        self.by_code: Mapping[str, Language] = found
        self._negotiate: Callable[[bytes], str] = lru_cache(maxsize=_MAX_CACHED_HEADERS)(self._negotiated)

    def negotiate(self, accept_language: bytes | None) -> str:
        """Return the code of the language that best matches an ``Accept-Language`` header, else English."""
        if not accept_language:
            return DEFAULT_LANGUAGE
        return self._negotiate(accept_language[:_MAX_HEADER_BYTES])

    def _negotiated(self, header: bytes) -> str:
        # Babel matches tags with languages, but doesn't parse the header.
        preferred: list[tuple[float, str]] = []
        for part in header.decode("latin-1").lower().split(","):
            tag, _, parameter = part.partition(";")
            primary, hyphen, rest = tag.strip().partition("-")
            quality = _quality(parameter)
            if quality > 0.0:
                preferred.append((quality, _OLD_CODES.get(primary, primary) + hyphen + rest))
        preferred.sort(key=lambda entry: -entry[0])
        tags = [tag for _, tag in preferred]
        return negotiate_locale(tags, self.by_code, sep="-", aliases={}) or DEFAULT_LANGUAGE


def _quality(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if not name.strip():
        return 1.0
    try:
        quality = float(value) if name.strip() == "q" else 0.0
    except ValueError:
        return 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0


def _read_catalogue(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        catalogue = read_po(file, locale=path.stem, abort_invalid=True)
    return {
        str(message.id): str(message.string)
        for message in catalogue
        if message.id and message.string and not message.fuzzy
    }
