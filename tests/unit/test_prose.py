"""Checks documentation and program texts for phrases that are not plain English, and suggests what to write instead."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

# Files to check, as globs from the root. In .md files code is skipped. In .py files docstrings, comments and strings of
# several words are read, in .html files everything but Jinja's code, and other files as a whole.
COVERED = [
    ".ci/run",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "config/waitroom.toml",
    "docs/access.md",
    "docs/admin-api.md",
    "docs/architecture.md",
    "docs/autopilot.md",
    "docs/bypass.md",
    "docs/commands.md",
    "docs/glossary.md",
    "docs/headers.md",
    "docs/installation.md",
    "docs/operating.md",
    "docs/performance.md",
    "docs/protection.md",
    "docs/proxies/*.md",
    "docs/queue.md",
    "docs/reliability.md",
    "docs/runbook.md",
    "docs/settings.md",
    "docs/shop.md",
    "docs/testing.md",
    "docs/threat-model.md",
    "docs/upgrading.md",
    "docs/visitor-api.md",
    "docs/waiting-page.md",
    "docs/webhooks.md",
    "deploy/*.*",
    "deploy/*/*",
    "hatch_build.py",
    "templates/**/*.html",
    "templates/**/*.js",
    "tests/system-packages.sh",
    "waitroom/**/*.lua",
    "waitroom/**/*.py",
    "waitroom/control/api/openapi.yaml",
]
# Code of others.
IGNORED = ["templates/admin/static/uplot/uPlot.iife.min.js"]

# Lines that need a banned phrase, for example because they quote the program: (file, part of the line).
ALLOWED: list[tuple[str, str]] = []

# The start of a sentence: of a line, after a list marker or heading, or after another sentence.
START = r"(?:^[^\S\n]*(?:(?:[-*>]|\d+\.|#+)[^\S\n]+)?|(?<=[.!?:;)])\s+)[*_(\"]*"
NO_QUESTION = r"(?![^.!]*\?)"
MACHINE = r"(?:shop|server|upstream|gateway|machine|address|store|worker|process)"
BE = r"(?:is|are|was|were|stays?|has been|have been)"


class Banned(NamedTuple):
    """A phrase to avoid. A space in ``pattern`` also matches a line break; case matters only in ``(?-i:)``."""

    pattern: str
    instead: str
    example: str


BANNED = [
    # Free relatives as subjects.
    Banned(
        START + r"(?-i:Who|Whom|Whoever|Whomever)\b" + NO_QUESTION,
        'start with a noun: "Visitors who close the tab keep their place."',
        "Fair. Who closes the tab keeps the place.",
    ),
    Banned(
        r"; (?:and |but |or )?(?:who|whom)(?:ever)? \w",
        'start the clause with a noun: "failing upstreams are taken out of rotation"',
        "It takes a list; who fails is left out.",
    ),
    Banned(
        START + r"(?-i:What|Whatever)\b" + NO_QUESTION,
        'start with a noun: "A request that was never sent is retried." Titles are nouns too: "Limitations".',
        "## What it can't",
    ),
    # "Told" in its many meanings.
    Banned(r"\bwhat is told\b", 'name it: "the message", "the response"', "They see what is told."),
    Banned(
        rf"\b{BE} told (?:of (?!their|the turn)|(?:from|by|how|nothing|no)\b)",
        '"is notified of", "receives", "is distinguished from", "sees no ..."',
        "The shop is told of each request.",
    ),
    Banned(
        r"\b(?:can't|cannot|can|not to|to) be told\b",
        '"looks like", "cannot be distinguished from", "unknown"',
        "A proxy can't be told from a browser.",
    ),
    # Invalid, unknown, missing.
    Banned(
        rf"\b(?:that|which) {BE} (?-i:none)\b",
        '"invalid", "unknown", "malformed"',
        "The shop sent a command that is none.",
    ),
    Banned(rf"\b{BE} none of\b", '"is not one of", "does not belong to"', "Its path is none of ours."),
    Banned(
        r"\b(?:that|which) there (?:isn't|aren't|is not|are not)\b", '"unknown", "missing"', "a room that there isn't"
    ),
    # Words with a plainer equivalent.
    Banned(r"\banew\b", '"again", "new", or re-: reload, rewrite, restart', "Each request starts it anew."),
    Banned(r"\bmend(?:s|ed|ing)?\b", '"fix", "check", "repair"', "Mend the path."),
    Banned(r"\blest\b", '"so that ... not", "because otherwise"', "Lest it bursts."),
    Banned(r"\bat once\b", '"immediately"; of several, "at the same time"', "A second one stops at once."),
    Banned(
        r"\bat the (?:latest|most|least)\b", '"within", "at most", "at least"', "Half a second later at the latest."
    ),
    Banned(
        r"\b(?:bears|borne)\b|\b(?:can|can't|cannot|could|to|it|they|shops) bear\b",
        '"handles", "can handle", "capacity"',
        "How many shoppers the shop can bear.",
    ),
    Banned(
        rf"\b{MACHINE}s? {BE} well\b|\bwell again\b|\bwell (?:{MACHINE}|latency)",
        '"healthy", "until it recovers"',
        "It is left out until well again.",
    ),
    Banned(r"\bill\b", '"unhealthy"', "The upstream address is ill."),
    Banned(
        r"\b(?:for|by) (?:its|his|this|the) \w+ alone\b",
        '"only": "readable only by its owner"',
        "readable for its owner alone",
    ),
    Banned(
        r"\b(?:let|lets|letting) (?:it |them |that |requests )?by\b", '"let through", "allow"', "The rule lets it by."
    ),
    Banned(
        r"\b(?:take|takes|took|taken|taking) (?:it|them|that|this) (?:away|back)\b",
        '"clear", "remove", "undo", "revert"',
        "An empty text takes it away.",
    ),
    Banned(
        r"\bhow (?:it|they|each room|the rooms?) stands?\b",
        '"the status of"',
        "Shows how each room stands.",
    ),
    # The queue: a line is a line of text.
    Banned(
        r"\bfair line\b|\bthe line (?:is|stands|stays|moves|forms|works|goes)\b"
        r"|\b(?:in|join|joins|leave|leaves|end of|front of|middle of) (?:the )?line\b(?! (?:\d|of|in|with))",
        '"queue"',
        "Visitors wait in line.",
    ),
]
FINDERS = [
    (re.compile(ban.pattern.replace(" ", r"(?:[^\S\n]+|[^\S\n]*\n[^\S\n]*)"), re.I | re.M), ban) for ban in BANNED
]


def _blank(text: str) -> str:
    """Replace every character but line breaks, so that lines keep their numbers."""
    return re.sub(r"[^\n]", "~", text)


def markdown_prose(text: str) -> str:
    """Return the text without code and link targets, line for line."""
    text = re.sub(r"^```.*?^```$", lambda code: _blank(code[0]), text, flags=re.M | re.S)
    text = re.sub(r"(?<=\n\n)(?: {4}[^\n]*(?:\n+|\Z))+", lambda code: _blank(code[0]), text)
    text = re.sub(r"`[^`]*`|(?<=\])\([^)]*\)|<https?:[^>]*>", lambda code: _blank(code[0]), text)
    return re.sub(r"^~+$", "", text, flags=re.M)


def python_prose(text: str) -> str:
    """Return the docstrings, comments and strings of several words, line for line."""
    prose = [""] * (text.count("\n") + 1)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            prose[token.start[0] - 1] += " " + token.string.lstrip("#: ")
        elif tokenize.tok_name[token.type] in ("STRING", "FSTRING_MIDDLE"):
            content = re.sub(r"""^[a-zA-Z]*("{3}|'{3}|"|')|("{3}|'{3}|"|')$""", "", token.string)
            content = re.sub(r"\{[^{}]*\}", "~", content)
            if " " in content:
                for number, line in enumerate(content.split("\n"), token.start[0] - 1):
                    prose[number] += " " + line.strip()
    return "\n".join(line.strip() for line in prose)


def html_prose(text: str) -> str:
    """Return the text without Jinja's statements and expressions; their strings stay."""
    return re.sub(r"\{%.*?%\}|\{#.*?#\}|\{\{(?! *_\().*?\}\}", lambda code: _blank(code[0]), text, flags=re.S)


PROSE = {".md": markdown_prose, ".py": python_prose, ".html": html_prose}


def findings(name: str, text: str) -> Iterator[str]:
    """Yield ``file:line: "words": advice`` for each banned phrase."""
    lines = text.splitlines()
    suffix = Path(name).suffix
    prose = PROSE[suffix](text) if suffix in PROSE else text
    for finder, ban in FINDERS:
        for found in finder.finditer(prose):
            words = found[0].lstrip()
            number = prose.count("\n", 0, found.end() - len(words)) + 1
            if not any(name == file and part in lines[number - 1] for file, part in ALLOWED):
                yield f'{name}:{number}: "{" ".join(words.split())}": write {ban.instead}'


@pytest.mark.parametrize("glob", COVERED)
def test_prose_is_plain_english(glob: str) -> None:
    files = sorted(path for path in ROOT.glob(glob) if str(path.relative_to(ROOT)) not in IGNORED)
    assert files or "*" in glob
    found = [line for path in files for line in findings(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("ban", BANNED, ids=[ban.example for ban in BANNED])
def test_each_phrase_is_found(ban: Banned) -> None:
    for example in (ban.example, ban.example.replace(" ", "\n")):
        assert [line for line in findings("page.md", example) if ban.instead in line], example


@pytest.mark.parametrize(
    "text",
    [
        "The visitor who closes the tab keeps the place.",
        "Who is it?",
        "What does the shop see,\nand when?",
        "The audit log says who did it, and what it was; when, where, who.",
        "| setting | what it is |",
        "It works well, and is well known; visitors are told that it is sold out.",
        "The error is in line 5 of the file, and in line with the others.",
        "All none of it: none of these ends a session.",
        "A bearer token, and a will of its own.",
        "`takes it away`, [a page](https://example.com/at%20once) and `is\nnone of`.",
        "Run this:\n\n    echo Wait in line, at once\n\n```sh\n# Who is this.\n```\n",
    ],
)
def test_plain_english_passes(text: str) -> None:
    assert not list(findings("page.md", text))


def test_python_is_read_for_its_docstrings_comments_and_texts() -> None:
    source = (
        '"""Mend it.\n\nWho asks\nis answered at\nonce.\n"""\n\nMEND = "anew"  # not anew\nTEXT = f"{it} starts anew"\n'
    )
    assert [line.split(":")[1] for line in findings("module.py", source)] == ["3", "8", "9", "1", "4"]


def test_html_is_read_without_jinjas_code() -> None:
    source = "<p title='Mend it'>{% if anew %}{{ anew }}{{ _('Starts anew') }}{% endif %}</p>"
    assert len(list(findings("page.html", source))) == 2


def test_findings_name_the_line_the_words_and_the_advice() -> None:
    text = "# Title\n\nA sentence. Another is sent\nat once, and\nanew.\n"
    assert list(findings("docs/page.md", text)) == [
        'docs/page.md:5: "anew": write "again", "new", or re-: reload, rewrite, restart',
        'docs/page.md:4: "at once": write "immediately"; of several, "at the same time"',
    ]
