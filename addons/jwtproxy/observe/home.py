"""The page at the root: what this is, and how to use it."""

import html
from collections.abc import Iterator, Mapping

from .. import __version__
from ..conduct import echo
from . import pages
from .pages import Page

_WHAT = "A proxy that signs every request which passes it with a fresh JSON Web Token."
_BODY = "text/plain"


def page(headers: Mapping[str, str], proxy: str, *, apart: bool = False, kept: bool = True) -> Page:
    """In HTML where the client prefers that, else in text.

    `proxy`: its URL; empty where clients do not name it. `apart`: whether it has its pages at another. `kept`: whether
    it has one of recent requests.
    """
    own = {"Cache-Control": "no-store", "Vary": "Accept, Host"}
    ways = dict(_ways(proxy, apart=apart)) if proxy else {}
    has = {pages.HOME_PATH: False, pages.RECENT_PATH: kept, pages.PAC_PATH: bool(proxy)}
    links = {path: own.what for path, own in pages.PAGES.items() if has.get(path, True)}
    if pages.prefers_html(headers.get("accept", ""), _BODY):
        return Page(
            200, _html(ways, links), {"Content-Type": pages.HTML, "Content-Security-Policy": pages.POLICY, **own}
        )
    return Page(200, _text(ways, links), {"Content-Type": pages.TEXT, **own})


def _ways(proxy: str, *, apart: bool) -> Iterator[tuple[str, str]]:
    """How to send requests through the proxy."""
    yield "a request", f"curl --proxy {proxy} http://{echo.NAME}/"
    if apart:
        return
    if proxy.startswith("http:"):  # which these ask for the certificate
        yield "a program", f"jwtproxy-run exec --proxy {proxy} -- COMMAND"
        yield "a shell", f'eval "$(jwtproxy-run env --proxy {proxy})"'
    yield "a browser", f"{proxy}{pages.PAC_PATH}"


def _html(ways: Mapping[str, str], own: Mapping[str, str]) -> str:
    use = f"<h2>Send requests through it</h2>\n{pages.table(ways)}" if ways else ""
    links = "".join(
        f"<tr><th scope=row><a href={path}>{path}</a><td>{html.escape(what)}\n" for path, what in own.items()
    )
    trust = f"<p class=note>For HTTPS, clients have to trust <a href={pages.PEM_PATH}>the proxy's certificate</a>.\n"
    return pages.document("jwtproxy", f"<p>{_WHAT}\n{use}{trust}<h2>Pages</h2>\n<table>\n{links}</table>\n")


def _text(ways: Mapping[str, str], links: Mapping[str, str]) -> str:
    trust = f"For HTTPS, clients have to trust the proxy's certificate, which is at {pages.PEM_PATH}."
    use = [f"Send requests through it:\n{_lines(ways)}"] if ways else []
    return "\n\n".join((f"jwtproxy {__version__}", _WHAT, *use, trust, f"Pages:\n{_lines(links)}")) + "\n"


def _lines(rows: Mapping[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows.items())
