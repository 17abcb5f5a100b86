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

_GENERATED = "Made from waitroom/settings/gateway.py by `python -m waitroom.settings.reference`: change it there."
_WIDTH = 100

_INTRODUCTION = f"""\
<!-- {_GENERATED} -->

# Settings

Waitroom reads one TOML file (`waitroom run --config FILE`), the environment and flags. A flag goes before the
environment, the environment before the file, the file before the defaults. Only a room's `name` and `upstream`
have no default; `waitroom run --upstream http://127.0.0.1:3000` needs no file at all and makes one room, `shop`.

`waitroom check-config FILE` says all that is wrong with a file at once, each with its line and how to mend it.
Unknown keys, wrong units and contradictions are refused, at start and at reload. Times are numbers of seconds.

[{EXAMPLE}](../{EXAMPLE}) has every key with its default, ready to be copied.

## In the environment

| variable | sets |
|---|---|
| `WAITROOM_<KEY>` | a key of the top level: `WAITROOM_LISTEN=0.0.0.0:80` |
| `WAITROOM_<KEY>` | a key of the room, where there is one room: `WAITROOM_RATE_PER_MINUTE=1200` |
| `WAITROOM_ROOMS_<NAME>_<KEY>` | a key of a named room: `WAITROOM_ROOMS_SHOP_MAX_ACTIVE=500` |

- In a variable's name, a room's name is in capitals, with `_` for `-`.
- Lists are separated by commas: `WAITROOM_TRUSTED_PROXIES=127.0.0.1,10.0.0.0/8`; so are several upstreams.
- `bypass` is written as in TOML: `WAITROOM_BYPASS='[{{paths = ["/webhooks/"], methods = ["POST"]}}]'`.
- An empty variable is as good as none.
- A variable beginning with `WAITROOM_` that is no setting is refused. Those that Kubernetes makes for a service
  called waitroom (`WAITROOM_SERVICE_HOST`, `WAITROOM_PORT=tcp://...` and the like) are passed over.
"""

_HEADINGS = {
    "": ("Top level", "These stand above the first `[[rooms]]`."),
    "rooms": ("[[rooms]]", "One such table for each waiting room."),
    "rooms.bypass": (
        "[[rooms.bypass]]",
        "Rules of the room above them; as many as are needed, or none. See docs/bypass.md.",
    ),
    "users": (
        "[[users]]",
        "Who may log in on the admin listener; see docs/access.md. `waitroom user add` does without these.",
    ),
    "webhooks": ("[[webhooks]]", "One such table for each who is told of events, or none; see docs/webhooks.md."),
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
        *_comment("The settings of a Waitroom gateway: every key, what it is for, its default and when to change it."),
        "#",
        *_comment(
            "A line beginning with # and a key, without a blank between, shows a setting that is not made: take "
            "the # away to make it. Check the file with: waitroom check-config FILE"
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
        return "none, it must be given"
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
