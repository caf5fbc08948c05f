"""The demo site as a process: `python -m llmctl.crawl.demo_server` serves on loopback until its stdin is closed.

It prints its port on the first line of stdout once it is ready. Pages are rendered when they are asked for, one at a
time.
"""

from __future__ import annotations

import os
import sys
import threading
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from llmctl.crawl.demo_pages import SiteDoc, blocks, modules, topics
from llmctl.crawl.demo_texts import ADVERT, TRANSLATIONS

# Every this many-th module has a mirror (the same bytes) or a print version (nearly the same text), for the filters.
_MIRRORED, _PRINTED = 23, 29
_ROBOTS = "User-agent: *\nDisallow: /private/\n\nSitemap: {base}/sitemap.xml\n"
_PAGE = """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<title>{title}</title>
</head>
<body>
<nav>
<a href="/">Index</a> | <a href="/reference/">Language reference</a> | <a href="/private/drafts.html">Drafts</a>
</nav>
<main><article>
{body}
</article></main>
<footer>Documentation of Python {version}, rendered by pydoc on this machine.</footer>
</body>
</html>
"""


class Site:
    """The pages by path. Thread safe."""

    def __init__(self) -> None:
        self._modules = modules()
        self._topics = topics()
        self._doc = SiteDoc(set(self._modules))
        self._lock = threading.Lock()
        self._rendered: dict[str, str] = {}

    def page(self, path: str) -> str | None:
        """The HTML at `path`, or None where there is none."""
        section, _, rest = path.lstrip("/").partition("/")
        name = rest.removesuffix(".html")
        if path in ("/", "/index.html"):
            return self._index()
        if section == "library" or (section == "mirror" and name in self._modules[::_MIRRORED]):
            return self._library(name) if name in self._modules else None
        if section == "print" and name in self._modules[::_PRINTED]:
            page = self._library(name)
            return page and page.replace("<article>", "<article>\n<p>Print version. Page breaks were left out.</p>", 1)
        if section == "reference":
            return self._reference(name)
        if section in TRANSLATIONS and name == "rights":
            title, text = TRANSLATIONS[section]
            body = f"<h1>{title}</h1>\n" + "\n".join(f"<p>{escape(p, quote=False)}</p>" for p in text.split("\n"))
            return _page(title, body, section)
        if path == "/offers/free-prize.html":
            return _page("Free prize", f"<h1>Free prize</h1>\n<p>{ADVERT}</p>")
        if section == "private":
            return _page("Drafts", "<h1>Drafts</h1>\n<p>robots.txt asks crawlers not to read this.</p>")
        return None

    def sitemap(self, base: str) -> str:
        """Every module's page; those that no other page links to are found only here."""
        places = "".join(f"<url><loc>{base}/library/{name}.html</loc></url>\n" for name in self._modules)
        head = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        return f"{head}{places}</urlset>\n"

    def _library(self, name: str) -> str | None:
        with self._lock:
            if name not in self._rendered:
                self._rendered[name] = _page(f"Python: {name}", self._doc.module_page(name))
            return self._rendered[name]

    def _reference(self, name: str) -> str | None:
        if not name:
            return _page(
                "Language reference", "<h1>Language reference</h1>\n" + _links("/reference/", list(self._topics))
            )
        text = self._topics.get(name)
        return None if text is None else _page(f"Python: {name}", blocks(text, lambda part: escape(part, quote=False)))

    def _index(self) -> str:
        mirrors, prints = self._modules[::_MIRRORED], self._modules[::_PRINTED]
        parts = [
            "<h1>The Python library</h1>",
            _links("/library/", [m for m in self._modules if "." not in m]),
            "<h2>Mirror</h2>",
            _links("/mirror/", mirrors),
            "<h2>Print versions</h2>",
            _links("/print/", prints),
            "<h2>Other languages</h2>",
            "<ul>"
            + "".join(f'<li><a href="/{c}/rights.html">{t}</a></li>' for c, (t, _) in TRANSLATIONS.items())
            + "</ul>",
            '<p><a href="/offers/free-prize.html">A word from our sponsors</a></p>',
        ]
        return _page("The Python library", "\n".join(parts))


def _links(folder: str, names: list[str]) -> str:
    return "<ul>" + "\n".join(f'<li><a href="{folder}{n}.html">{n}</a></li>' for n in names) + "</ul>"


def _page(title: str, body: str, language: str = "en") -> str:
    version = sys.version.split()[0]
    return _PAGE.format(title=escape(title), body=body, language=language, version=version)


class Handler(BaseHTTPRequestHandler):
    """GET of the site's pages."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    site: Site

    def do_GET(self) -> None:
        """Answer one request."""
        path = self.path.partition("?")[0]
        base = f"http://{self.headers.get('Host', 'localhost')}"
        if path == "/robots.txt":
            self._answer(200, _ROBOTS.format(base=base), "text/plain")
        elif path == "/sitemap.xml":
            self._answer(200, self.site.sitemap(base), "application/xml")
        elif (page := self.site.page(path)) is not None:
            self._answer(200, page, "text/html; charset=utf-8")
        else:
            self._answer(404, "<h1>Not found</h1>", "text/html; charset=utf-8")

    def _answer(self, status: int, text: str, kind: str) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: stderr belongs to the crawl."""


def main() -> None:
    """Serve until stdin closes, which it also does when the parent is killed."""
    # Signatures show defaults, and `cgi.FieldStorage` has the whole environment, with its secrets, as one of them.
    for name in set(os.environ) - {"SYSTEMROOT"}:
        del os.environ[name]
    Handler.site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.buffer.read()
    os._exit(0)  # what the imported modules registered for the exit is none of ours


if __name__ == "__main__":
    main()
