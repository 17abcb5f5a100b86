"""Renders templates: finds them, provides placeholders for a visitor's values, and minifies them.

Also the Content-Security-Policy of a page: the hashes of its inline scripts and styles.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import NoReturn

import rcssmin
import rjsmin
from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PrefixLoader,
    StrictUndefined,
    TemplateRuntimeError,
)
from jinja2.sandbox import SandboxedEnvironment

from waitroom.edge.pages.segments import CLOSE, OPEN


class Slot:
    """A placeholder, during rendering, for a value that differs between visitors.

    It can only be printed: anything that a template computed from it would be the same for everyone.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __html__(self) -> str:
        return f"{OPEN}{self._name}{CLOSE}"

    def _refuse(self, *_: object) -> NoReturn:
        raise TemplateRuntimeError(
            f"{self._name!r} differs for every visitor: it can be printed or tested with 'if', "
            "but not compared, filtered or used in calculations"
        )

    __str__ = __float__ = __len__ = __iter__ = __getitem__ = __hash__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __mod__ = __rmod__ = _refuse
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __neg__ = __contains__ = _refuse

    def __bool__(self) -> bool:
        return True


def environment(templates: Path, custom: Path | None = None) -> SandboxedEnvironment:
    """Return the environment in which templates are compiled.

    Args:
        templates: Waitroom's own templates; they are found under ``waitroom/``.
        custom: An operator's folder of templates, found under their bare names, or None.
    """
    loaders: list[BaseLoader] = [PrefixLoader({"waitroom": _MinifyingLoader(templates)})]
    if custom is not None:
        loaders.append(FileSystemLoader(custom))
    made = SandboxedEnvironment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return made


class _MinifyingLoader(FileSystemLoader):
    """Loads templates without indentation, and minified CSS and JavaScript.

    Pages are sent most often when bandwidth is scarcest, and the templates should stay readable.
    """

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        source, path, up_to_date = super().get_source(environment, template)
        if template.endswith(".css"):
            source = rcssmin.cssmin(source)
        elif template.endswith(".js"):
            source = rjsmin.jsmin(source)
        else:
            source = "\n".join(filter(None, [line.strip() for line in source.splitlines()]))
        return source, path, up_to_date


@dataclass(slots=True)
class Inline:
    """The inline parts of a page that a browser runs or applies only if the policy contains their hashes.

    Attributes:
        scripts: Sources such as ``'sha256-...'`` for ``script-src``.
        styles: The same for ``style-src``.
        attributes: Whether some of them are attributes, which also require ``'unsafe-hashes'``.
        polls: Whether the page polls by itself: by Waitroom's script or a refresh outside of noscript.
        broken: The problems of the page, a sentence each.
    """

    scripts: set[str] = field(default_factory=set)
    styles: set[str] = field(default_factory=set)
    attributes: bool = False
    polls: bool = False
    problems: list[str] = field(default_factory=list)


def inspect(page: str) -> Inline:
    """Return the inline scripts and styles of a rendered page with its slots still marked."""
    reader = _InlineReader()
    reader.feed(page)
    reader.close()
    return reader.found


class _InlineReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found = Inline()
        self._content: list[str] | None = None
        self._in_noscript = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        for name, value in given.items():
            if name == "style":
                self._add(self.found.styles, value, "a style attribute", attribute=True)
            elif name.startswith("on"):
                self._add(self.found.scripts, value, f"an {name} attribute", attribute=True)
        if tag == "script" and "src" in given:
            self.found.problems.append(
                f"It loads a script from {given['src']!r}, which browsers refuse for security; "
                "put the script into the page itself."
            )
        if tag == "style" or (tag == "script" and _runs(given)):
            self._content = []
        elif tag == "noscript":
            self._in_noscript = True
        elif given.get("id") == "waitroom" or (
            tag == "meta" and given.get("http-equiv", "").lower() == "refresh" and not self._in_noscript
        ):
            self.found.polls = True

    def handle_data(self, data: str) -> None:
        if self._content is not None:
            self._content.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "noscript":
            self._in_noscript = False
        if self._content is None or tag not in ("script", "style"):
            return
        content, self._content = "".join(self._content), None
        sources = self.found.styles if tag == "style" else self.found.scripts
        self._add(sources, content, f"a {tag} element")

    def _add(self, sources: set[str], content: str, where: str, *, attribute: bool = False) -> None:
        if OPEN in content:
            self.found.problems.append(
                f"It uses a visitor's value in {where}, which browsers refuse for security; "
                "put it in a data- attribute and read it from there."
            )
        self.found.attributes |= attribute
        sources.add(f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'")


def _runs(attributes: Mapping[str, str]) -> bool:
    kind = attributes.get("type", "")
    return kind in ("", "module") or "javascript" in kind


def policy(pages: Iterable[Inline], *, custom: bool) -> str:
    """Return a Content-Security-Policy that allows exactly what all these pages need.

    Args:
        pages: The inline parts of the pages.
        custom: Whether an operator's page is among them: those may load pictures, fonts and styles over https.
    """
    scripts: set[str] = set()
    styles: set[str] = set()
    hashed_attributes: set[str] = set()
    for page in pages:
        scripts |= page.scripts
        styles |= page.styles
        if page.attributes:
            hashed_attributes = {"'unsafe-hashes'"}
    elsewhere = " 'self' https:" if custom else ""
    rules = [
        "default-src 'none'",
        f"script-src {' '.join(sorted(scripts | hashed_attributes))}",
        f"style-src {' '.join(sorted(styles | hashed_attributes))}{elsewhere}",
        f"img-src data:{elsewhere}",
        f"font-src data:{elsewhere}",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
        "base-uri 'none'",
    ]
    return "; ".join(rules)
