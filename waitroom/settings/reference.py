"""Generates the reference of the settings and the commented example file from the definitions of the settings.

``python -m waitroom.settings.reference`` in the repository's root rewrites both.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

from waitroom.settings.gateway import Settings
from waitroom.settings.schema import Key, Shape, keys_of, plain_number, tables_of

REFERENCE = Path("docs/settings.md")
EXAMPLE = Path("config/waitroom.toml")

_GENERATED = "Generated from waitroom/settings by `python -m waitroom.settings.reference`; edit the definitions there."
_WIDTH = 100

_INTRODUCTION = f"""\
<!-- {_GENERATED} -->

# Settings

Waitroom reads one TOML file (`waitroom run --config FILE`), the environment and flags. Flags take precedence over the
environment, the environment over the file, and the file over the defaults. Only `name` and `upstream` of a room have
no default; `waitroom run --upstream http://127.0.0.1:3000` needs no file and creates one room, `shop`.

`waitroom check-config FILE` lists every error in a file, each with its line and how to fix it. Unknown keys, wrong
units and contradictions are rejected. Times are numbers of seconds.

[{EXAMPLE}](../{EXAMPLE}) contains every key with its default, ready to copy.

## Environment variables

| variable | sets |
|---|---|
| `WAITROOM_<KEY>` | a key of the top level: `WAITROOM_LISTEN=0.0.0.0:80` |
| `WAITROOM_<KEY>` | a key of the room, if there is only one: `WAITROOM_RATE_PER_MINUTE=1200` |
| `WAITROOM_ROOMS_<NAME>_<KEY>` | a key of a named room: `WAITROOM_ROOMS_SHOP_MAX_ACTIVE=500` |

- Write a room's name in capitals, with `_` instead of `-`.
- Separate the items of a list by commas: `WAITROOM_TRUSTED_PROXIES=127.0.0.1,10.0.0.0/8`; also several upstreams.
- Write `bypass` and `events` as in TOML: `WAITROOM_BYPASS='[{{paths = ["/webhooks/"], methods = ["POST"]}}]'`.
- Empty variables are ignored.
- Unknown variables that start with `WAITROOM_` are rejected. Those that Kubernetes sets for a service called waitroom
  (`WAITROOM_SERVICE_HOST`, `WAITROOM_PORT=tcp://...` and so on) are ignored.
"""

_HEADINGS = {
    "": ("Top level", "These keys go above the first `[[rooms]]`."),
    "rooms": ("[[rooms]]", "One table for each waiting room."),
    "rooms.bypass": (
        "[[rooms.bypass]]",
        "Rules of the preceding room, any number of them. See docs/bypass.md.",
    ),
    "rooms.events": (
        "[[rooms.events]]",
        "Scheduled sales of the preceding room, at most 64. See docs/events.md. Keys without a default that are "
        "limits of the room override them while the event runs.",
    ),
    "users": (
        "[[users]]",
        "Users who may log in on the admin listener; see docs/access.md. `waitroom user add` is the alternative.",
    ),
    "webhooks": ("[[webhooks]]", "One table for each receiver of events; see docs/webhooks.md."),
}


def reference_markdown() -> str:
    """Return the text of docs/settings.md."""
    parts = [_INTRODUCTION]
    for header, table in tables_of(Settings).items():
        title, introduction = _HEADINGS[header]
        parts.append(f"## {title}\n\n{introduction}\n")
        parts.extend(_section(key, header) for key in _plain_keys(table))
    return "\n".join(parts)


def example_toml() -> str:
    """Return the text of config/waitroom.toml: every key, those with a default commented out."""
    lines = [
        *_comment("The settings of a Waitroom gateway: every key with its purpose, its default and when to change it."),
        "#",
        *_comment(
            "Lines that start with # and a key, without a space between, are settings that are turned off: remove "
            "the # to use them. Check the file with: waitroom check-config FILE"
        ),
        "#",
        *_comment(_GENERATED),
    ]
    for header, table in tables_of(Settings).items():
        if header:
            off = "" if header == "rooms" else "#"
            lines += ["", *_comment("-" * (_WIDTH - 2)), *_comment(_HEADINGS[header][1]), f"{off}[[{header}]]"]
        for key in _plain_keys(table):
            off = "" if key.required and header == "rooms" else "#"
            lines += ["", *_comment(key.about.what)]
            lines += _comment(" ".join(f"{label}: {text}." for label, text in _facts(key)))
            lines += _comment(key.about.reason)
            if key.about.change:
                lines += _comment(f"When to change it: {key.about.change}")
            lines.append(f"{off}{key.name} = {_sample(key)}")
    return "\n".join(lines) + "\n"


def _plain_keys(table: type) -> Iterator[Key]:
    """Yield the keys of a table that aren't tables themselves: those have their own part."""
    return (key for key in keys_of(table).values() if key.shape is not Shape.TABLES)


def _section(key: Key, header: str) -> str:
    facts = [f"- {label}: {text}" for label, text in _facts(key)]
    if key.about.example:
        facts.append(f"- Example: `{key.name} = {key.about.example}`")
    if not header:
        facts.append(f"- Environment: `WAITROOM_{key.name.upper()}`")
    elif header == "rooms":
        name = key.name.upper()
        facts.append(f"- Environment: `WAITROOM_{name}`, `WAITROOM_ROOMS_<NAME>_{name}`")
    text = f"{key.about.what} {key.about.change}".rstrip()
    reason = f"\n\n{key.about.reason}" if key.about.reason else ""
    return f"### {key.name}\n\n{text}{reason}\n\n" + "\n".join(facts) + "\n"


def _facts(key: Key) -> Iterator[tuple[str, str]]:
    """Yield the short facts about a key, each with its label."""
    if key.about.unit:
        yield "Unit", key.about.unit
    if key.choices:
        yield "One of", ", ".join(toml_value(choice) for choice in key.choices)
    if key.bounds:
        yield "Bounds", key.bounds
    yield "Default", describe_default(key)


def describe_default(key: Key) -> str:
    """Return a key's default in the words of the reference and the example file."""
    if key.required:
        return "none, required"
    if key.default is None:
        return f"none ({key.about.unset})"
    unset = f" ({key.about.unset})" if key.about.unset else ""
    return toml_value(key.default) + unset


def _sample(key: Key) -> str:
    if key.about.example:
        return key.about.example
    return toml_value(key.default if key.default is not None else 1)


def toml_value(value: object) -> str:
    """Format a default as a TOML value: text, a number, or a list of those."""
    if isinstance(value, tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return json.dumps(plain_number(value) if isinstance(value, float) else value)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


if __name__ == "__main__":
    REFERENCE.write_text(reference_markdown(), encoding="utf-8")
    EXAMPLE.write_text(example_toml(), encoding="utf-8")
