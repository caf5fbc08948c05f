"""The demo site's pages, rendered by `pydoc.HTMLDoc` from the documentation of the running Python.

`SiteDoc` keeps what pydoc says and in which order, and replaces its layout of nested tables and non-breaking spaces by
the markup of an ordinary web page: headings, paragraphs, code blocks. What every class repeats (inherited members, the
one line that documents `__repr__`) is left out, as an editor would. The standard library is imported here, so this
module belongs into a process of its own: see `demo.py`.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import pkgutil
import pydoc
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

# They open windows or browsers, print or play when imported, are no documentation, or are gone in newer versions.
_LEFT_OUT = {
    "antigravity", "this", "idlelib", "turtledemo", "turtle", "tkinter", "test", "lib2to3", "distutils", "ensurepip",
    "pydoc_data", "encodings", "msilib", "nt", "sre_compile", "sre_constants", "sre_parse", "posix", "nis",
}  # fmt: skip
# The packages whose submodules have pages of their own.
_PACKAGES = ("asyncio", "collections", "concurrent", "email", "http", "importlib", "json", "logging", "multiprocessing",
             "sqlite3", "unittest", "urllib", "wsgiref", "xml", "zoneinfo")  # fmt: skip
_FOREIGN_SIGNATURE = 1 if sys.version_info >= (3, 11) else 2  # arguments of `section` before its contents
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_WRAPPER = re.compile(r"</?(?:span|tt|font|small|big)\b[^>]*>")
_INHERITED = re.compile(r"\s*(?:[A-Z][a-z ]+ inherited from|<dl><dt>Method resolution order)")
_GROUP = re.compile(r"\A\s*[A-Z][a-z ]+ defined here:(?:<br>)?\n")
_ROUTINE = re.compile(r"<dl><dt>(.*?)</dt>\s*(?:<dd>(.*)</dd>)?\s*</dl>\s*\Z", re.DOTALL)
_LINK = re.compile(r'<a href="([^"#]*)(#[^"]*)?"([^>]*)>(.*?)</a>', re.DOTALL)
_RULE = re.compile(r"^([*=\-~^])\1{2,}$")


def modules() -> list[str]:
    """The importable modules of the standard library that get a page, in order. Imports every one of them, silently."""
    names = [n for n in sorted(sys.stdlib_module_names) if not n.startswith("_") and n not in _LEFT_OUT]
    found = []
    with _silence():
        for name in names:
            if module := _imported(name):
                found.append(name)
                if name in _PACKAGES and hasattr(module, "__path__"):
                    inner = (f"{name}.{m.name}" for m in pkgutil.iter_modules(module.__path__))
                    found += [n for n in inner if "._" not in n and _imported(n)]
    return found


def _imported(name: str) -> Any:
    """The module, or None where this Python has none of that name or it does not import on this machine."""
    if name.endswith((".__main__", ".windows_events", ".windows_utils", ".popen_spawn_win32")):
        return None
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit):
        return None


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def topics() -> dict[str, str]:
    """The chapters of the language reference that come with pydoc, as plain text."""
    from pydoc_data.topics import topics as found

    return {name.lower(): text for name, text in sorted(found.items())}


class SiteDoc(pydoc.HTMLDoc):
    """pydoc's HTML writer with the markup of a web page. `known` are the modules that may be linked to."""

    def __init__(self, known: set[str]) -> None:
        super().__init__()
        self._known = known

    def module_page(self, name: str) -> str:
        """The contents of one module's page."""
        with _silence():
            text = self.docmodule(importlib.import_module(name))
        text = _ADDRESS.sub("", _LINK.sub(self._relink, _WRAPPER.sub("", text)))
        # Signatures show defaults, and some defaults are places on this machine.
        for place in (sys.executable, sys.prefix, sys.base_prefix):
            text = text.replace(place, "python")
        return text

    def _relink(self, found: re.Match[str]) -> str:
        """Links to pages there are become absolute; others become text. Anchors stay."""
        target, anchor, rest, text = found.groups()
        if target.startswith(("http:", "https:")):
            return found.group()
        if not target:
            return f'<a href="{anchor or ""}"{rest}>{text}</a>'
        name = target.removesuffix(".html")
        return f'<a href="/library/{name}.html{anchor or ""}">{text}</a>' if name in self._known else text

    def heading(self, title: str, *rest: Any) -> str:
        """The page's title; the path of the source file, which pydoc shows beside it, is nobody's business."""
        return f"<h1>{title}</h1>\n"

    def section(self, title: str, *rest: Any) -> str:
        """A section with its contents; for a class, its own documentation comes first."""
        contents = rest[_FOREIGN_SIGNATURE]
        prelude = rest[_FOREIGN_SIGNATURE + 2] if len(rest) > _FOREIGN_SIGNATURE + 2 else ""
        parts = [_GROUP.sub("", p) for p in contents.split("<hr>\n") if not _INHERITED.match(p)]
        level = 2 if "bigsection" in title else 3
        return f"<section>\n<h{level}>{title}</h{level}>\n{prelude}\n" + "\n".join(parts) + "\n</section>\n"

    def bigsection(self, title: str, *rest: Any) -> str:
        """One of pydoc's main sections. Lists of constants are data, not text."""
        if title == "Data":
            return ""
        return self.section(f'<strong class="bigsection">{title}</strong>', *rest)

    def multicolumn(self, list: list[Any], format: Callable[[Any], str], *rest: Any) -> str:
        """A list of links."""
        return "<ul>" + "".join(f"<li>{format(item)}</li>" for item in list) + "</ul>\n"

    def markup(self, text: str | None, escape: Any = None, *names: Any) -> str:
        """A docstring: paragraphs and code blocks, with pydoc's links inside."""

        def line(part: str) -> str:
            return super(SiteDoc, self).markup(part, self.escape, *names)

        return blocks(text or "", line) if escape == self.preformat else line(text or "")

    def docroutine(self, object: Any, name: str | None = None, mod: Any = None, *rest: Any) -> str:
        """A function: its signature as a heading, its documentation below."""
        shown = name or object.__name__
        of_class = rest[3] if len(rest) > 3 else None
        inherited = of_class is not None and shown not in vars(of_class)
        if inherited or (shown.startswith("__") and "\n" not in pydoc.getdoc(object)):
            return ""
        return _opened(super().docroutine(object, name, mod, *rest))

    def docdata(self, object: Any, name: str | None = None, mod: Any = None, cl: Any = None) -> str:
        """An attribute with documentation."""
        undocumented = not pydoc.getdoc(object) or (name or "").startswith("__")
        return "" if undocumented else _opened(super().docdata(object, name, mod, cl))

    docproperty = docdata

    def docother(self, object: Any, name: str | None = None, mod: Any = None, *rest: Any) -> str:
        """An attribute without: its name. Its value may be the environment of this machine."""
        return f"<strong>{name}</strong>" if name and not name.startswith("__") else ""

    def formattree(self, tree: Any, modname: Any, parent: Any = None) -> str:
        """The class tree; the classes follow, so it would only repeat their names."""
        return ""


def _opened(routine: str) -> str:
    """Turn pydoc's one-entry definition list into a heading and what belongs to it."""
    found = _ROUTINE.match(routine)
    if not found:
        return routine
    return f"<h4>{found.group(1)}</h4>\n{found.group(2) or ''}\n"


def blocks(text: str, line: Callable[[str], str]) -> str:
    """Plain documentation text as HTML. `line` marks up (and escapes) a piece of text."""
    parts = []
    for block in re.split(r"\n[ \t]*\n", inspect.cleandoc(text.expandtabs())):
        rows = block.rstrip().split("\n")
        if not block.strip():
            continue
        if len(rows) > 1 and _RULE.match(rows[1].strip()):
            level = 2 if rows[1].strip()[0] in "*=" else 3
            parts.append(f"<h{level}>{line(rows[0].strip())}</h{level}>")
            rows = rows[2:]
        if rows:
            parts.append(_block(rows, line))
    return "\n".join(parts)


def _block(rows: list[str], line: Callable[[str], str]) -> str:
    if _is_code(rows):
        return f"<pre><code>{escape(inspect.cleandoc(chr(10).join(rows)), quote=False)}</code></pre>"
    items: list[tuple[bool, list[str]]] = []
    margin = min(len(r) - len(r.lstrip()) for r in rows)
    for row in rows:
        hangs = len(row) - len(row.lstrip()) > margin
        begins = re.match(r"\s*(?:[-*+•]|\d+[.)])\s", row) is not None
        if items and (hangs or not (begins or items[0][0])) and not begins:
            items[-1][1].append(row.strip())
        else:
            items.append((begins or _has_hanging(rows, margin), [row.strip()]))
    return "\n".join(f"<p>{line(' '.join(words))}</p>" for _, words in items)


def _has_hanging(rows: list[str], margin: int) -> bool:
    """True for a list of names, each explained by the deeper lines below it."""
    return len(rows) > 1 and any(len(r) - len(r.lstrip()) > margin for r in rows[1:])


def _is_code(rows: list[str]) -> bool:
    """Indented lines that do not read as sentences, and interactive sessions."""
    if rows[0].lstrip().startswith((">>>", "...", "$ ")):
        return True
    if not all(r.startswith("  ") for r in rows):
        return False
    text = " ".join(rows)
    words = re.findall(r"[A-Za-z]{2,}", text)
    signs = len(re.findall(r"[=(){}\[\]:_<>]", text))
    return "::=" in text or len(words) < 6 or signs > len(words) / 3
