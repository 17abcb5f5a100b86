"""An operator's own waiting page: compiled and tested at start, so that it can't fail for visitors."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from jinja2 import Template, TemplateNotFound, TemplateSyntaxError

from waitroom.edge.pages.templates import Inline, environment, inspect
from waitroom.errors import Problem

# It is sent to every visitor in the shop's busiest minute, and each worker keeps about a hundred variants of it.
_MAX_BYTES = 128 * 1024

_INLINE = re.compile(
    r"<(?:script|style|noscript)\b.*?</(?:script|style|noscript)|<meta\b[^>]*>|\s(?:style|on\w+)\s*=[^>]*",
    re.DOTALL | re.IGNORECASE,
)


class CustomTemplate:
    """One operator's template.

    Args:
        path: The template.
        waitroom_templates: Waitroom's own templates, which it may extend.
        where: The setting that names it, for messages.

    Attributes:
        template: The compiled template, or None if it could not be compiled.
        problems: All problems found so far.
    """

    def __init__(self, path: Path, waitroom_templates: Path, where: str) -> None:
        self.problems: list[Problem] = []
        self.template: Template | None = None
        self._path = path
        self._where = where
        try:
            self.template = environment(waitroom_templates, path.parent).get_template(path.name)
        except (TemplateNotFound, TemplateSyntaxError, OSError, UnicodeDecodeError) as error:
            self._failed(error)

    def check(self, renderings: Iterable[Callable[[], str]]) -> list[Inline]:
        """Render the page in every variant that may be needed.

        Args:
            renderings: Each renders this template, with its slots marked.

        Returns:
            The inline scripts and styles of each page.
        """
        pages: set[str] = set()
        for render in renderings:
            try:
                pages.add(render())
            # A template may raise anything, and the operator should see all of it.
            except Exception as error:
                self._failed(error)
        # Inspecting a page takes a millisecond, and most pages don't differ in anything that matters here.
        found = [inspect(page) for page in {tuple(_INLINE.findall(page)): page for page in pages}.values()]
        for sentence in dict.fromkeys(sentence for inline in found for sentence in inline.problems):
            self._add(f"{self._path}: {sentence}")
        if not all(inline.polls for inline in found):
            self._add(
                f"{self._path}: the page never polls for the visitor's turn.",
                'Put {% include "waitroom/script.html" %} at the end of its body, in every state.',
            )
        largest = max((len(page.encode()) for page in pages), default=0)
        if largest > _MAX_BYTES:
            self._add(
                f"{self._path}: the page is {largest // 1024} KB; at most {_MAX_BYTES // 1024} KB are allowed.",
                "Use smaller images, or load them from elsewhere.",
            )
        return found

    def _failed(self, error: BaseException) -> None:
        file, line = self._place(error)
        at = f"{file}, line {line}: " if line else f"{file}: "
        if any(problem.what.startswith(at) for problem in self.problems):
            return
        what = f"template {error.name!r} not found" if isinstance(error, TemplateNotFound) else str(error)
        if isinstance(error, TemplateSyntaxError):
            what = error.message or "syntax error"
        self._add(f"{at}{what.rstrip('.')}.", "See docs/waiting-page.md for the variables and blocks of a template.")

    def _place(self, error: BaseException) -> tuple[str, int | None]:
        if isinstance(error, TemplateSyntaxError):
            return error.filename or str(self._path), error.lineno
        # Jinja puts the templates' own files and lines into the traceback; use the innermost of the operator's.
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if Path(frame.filename).parent.is_relative_to(self._path.parent):
                return frame.filename, frame.lineno
        return str(self._path), None

    def _add(self, what: str, mend: str = "") -> None:
        self.problems.append(Problem(self._where, what, mend))
