"""The proxy's own pages."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.conduct.proxy_status import ErrorType
from jwtproxy.config.errors import SettingsError
from jwtproxy.config.place import Place
from jwtproxy.observe import pages
from jwtproxy.observe.pages import Reader

MEMBERS = {"proxied_requests": 7, "version": "<1&2>"}
CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


JWKS = '{"keys": [{"kty": "OKP"}]}\n'


READ: dict[str, pages.Read] = {
    pages.STATUS_PATH: lambda headers: pages.Page(200, json.dumps(MEMBERS)),
    pages.JWKS_PATH: lambda headers: pages.jwks(headers, JWKS, 300),
}
UNASKED: dict[str, pages.Read] = {}


def _get(path: str = "/status", method: str = "GET", **headers: str) -> pages.Page:
    return pages.answer(method, path, {name.replace("_", "-"): value for name, value in headers.items()}, READ)


@pytest.mark.parametrize(
    ("accept", "is_html"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html", True),
        ("TEXT/HTML", True),
        ("text/*", True),
        (CHROME, True),
        (FIREFOX, True),
        ("text/html, application/json", False),
        ("text/html;q=0.5, application/json", False),
        ("text/html, application/json;q=0.5", True),
        ("text/html;q=0", False),
        ("text/plain", False),
        ("image/png", False),
        ("nonsense", False),
        ("text/html;q=x, ;;,", False),
    ],
)
def test_json_unless_html_is_preferred(accept: str, is_html: bool) -> None:
    assert pages.prefers_html(accept) == is_html


@pytest.mark.parametrize("path", ["/status", "/status?", "/status?x=/y?z"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_status_may_be_asked_with_a_query(method: str, path: str) -> None:
    assert pages.is_own(path)
    assert _get(path, method) == _get()


@pytest.mark.parametrize(
    "path",
    [
        *("", "*", "/nope", "/status/", "/Status", "//status", "/status/x", "/status%3F", "status"),
        *("/.well-known/", "/.well-known/jwks", "/jwks.json", "/.well-known/jwks.json/", "/.well-known//jwks.json"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_other_paths_do_not_exist(method: str, path: str) -> None:
    assert not pages.is_own(path)
    page = pages.answer(method, path, {"accept": "text/html"}, UNASKED)
    assert (page.code, "Allow" in page.headers) == (404, False)
    assert page.body.startswith("jwtproxy: ")


@pytest.mark.parametrize("path", ["/status", "/.well-known/jwks.json", "/.well-known/jwks.json?x"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW", "get", ""])
def test_pages_can_only_be_read(method: str, path: str) -> None:
    page = pages.answer(method, path, {}, UNASKED)
    assert (page.code, page.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert page.body.startswith("jwtproxy: ")


@pytest.mark.parametrize("path", ["*", "/status", "/.well-known/jwks.json"])
def test_options_says_what_is_allowed(path: str) -> None:
    assert pages.answer("OPTIONS", path, {}, UNASKED) == pages.Page(204, "", {"Allow": "GET, HEAD, OPTIONS"})


def test_the_root_is_ours_but_not_where_only_the_path_can_tell() -> None:
    """In front of a server, its own root stays what it is, with jwt_pages=on too."""
    assert pages.answer("POST", "/", {}, UNASKED).code == 405
    assert not pages.is_own("/")
    assert not pages.is_own("/?x")
    assert all(pages.is_own(path) for path in pages.PAGES if path != "/")


def test_what_probes_verifiers_and_new_clients_need_is_for_anyone() -> None:
    """Where a password is asked for, the table says which pages want it."""
    guarded = {path: pages.reader_of(path) for path in pages.PAGES if pages.reader_of(path) is not Reader.ANYONE}
    assert guarded == {"/": Reader.USER, "/status": Reader.USER, "/metrics": Reader.USER, "/recent": Reader.NEARBY}
    assert pages.reader_of("/recent?x") is Reader.NEARBY
    assert pages.reader_of("/nope") is Reader.ANYONE


def test_options_of_an_unknown_path_is_404() -> None:
    assert pages.answer("OPTIONS", "/nope", {}, UNASKED).code == 404


@given(st.text(), st.text().filter(lambda path: path.partition("?")[0] not in pages.PAGES), st.text())
def test_any_request_has_an_answer(method: str, path: str, accept: str) -> None:
    assert _get(path, method, accept=accept).code in (200, 204, 404, 405)
    assert _get(accept=accept).code == 200


# --- the public keys


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/.well-known/jwks.json", "/.well-known/jwks.json?v=1"])
def test_the_public_keys_may_be_kept_for_a_while(method: str, path: str) -> None:
    assert pages.is_own(path)
    page = _get(path, method, accept="text/html")
    assert (page.code, page.body) == (200, JWKS)
    assert page.headers.keys() == {"Content-Type", "Cache-Control", "ETag"}
    assert page.headers["Content-Type"] == "application/jwk-set+json"
    assert page.headers["Cache-Control"] == "public, max-age=300"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("{etag}", 304),
        ("W/{etag}", 304),
        ('"other", {etag}', 304),
        ("*", 304),
        ('"other"', 200),
        ("", 200),
        ("nonsense", 200),
    ],
)
def test_who_has_the_same_keys_gets_no_body(sent: str, code: int) -> None:
    etag = _get(pages.JWKS_PATH).headers["ETag"]
    assert re.fullmatch('"[!-~]+"', etag)
    for method in ("GET", "HEAD"):
        page = _get(pages.JWKS_PATH, method, if_none_match=sent.format(etag=etag))
        assert page.code == code
        assert page.headers["ETag"] == etag
        assert page.headers["Cache-Control"] == "public, max-age=300"
        assert (page.body == "") == (code == 304)


def test_other_keys_have_another_etag() -> None:
    etags = {pages.jwks({}, body, 0).headers["ETag"] for body in (JWKS, '{"keys": []}\n', JWKS)}
    assert len(etags) == 2


@given(st.text())
def test_any_if_none_match_has_an_answer(sent: str) -> None:
    assert _get(pages.JWKS_PATH, if_none_match=sent).code in (200, 304)


def test_a_short_answer_speaks_in_our_voice() -> None:
    page = pages.text(405, "no way", Allow="GET")
    fields = {"Content-Type": "text/plain; charset=utf-8", "Allow": "GET", "Vary": "Accept"}
    assert page == pages.Page(405, "jwtproxy: no way\n", fields, "no way")
    assert pages.NONE.code == 404


def test_what_takes_an_upstreams_place_says_of_which_type_it_is() -> None:
    page = pages.text(502, "no way", ErrorType.DNS_ERROR)
    assert page.headers["Proxy-Status"] == "jwtproxy; error=dns_error"
    assert "Proxy-Status" not in pages.NONE.headers


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        *((accept, "text/plain; charset=utf-8") for accept in ("", "*/*", "text/plain", "text/*", "image/png", "???")),
        ("text/html;q=0.2, text/plain;q=0.3", "text/plain; charset=utf-8"),
        ("application/json, text/plain, */*", "text/plain; charset=utf-8"),
        ("text/html" + ", text/html" * 100, "text/plain; charset=utf-8"),
        *((accept, "text/html; charset=utf-8") for accept in ("text/html", BROWSER, "text/html;charset=utf-8")),
        ("application/json", "application/problem+json"),
        ("application/json; charset=UTF-8", "application/problem+json"),
        ("application/problem+json;charset=utf-8", "application/problem+json"),
        ("application/problem+json", "application/problem+json"),
        ("application/*", "application/problem+json"),
        ("text/html;q=0.2, application/json", "application/problem+json"),
    ],
)
def test_a_short_answer_has_the_form_that_is_preferred(accept: str, form: str) -> None:
    page = pages.in_form(pages.text(502, "<no> way", ErrorType.DNS_ERROR), accept)
    assert (page.code, page.headers["Content-Type"], page.headers["Vary"]) == (502, form, "Accept")
    assert page.headers["Proxy-Status"] == "jwtproxy; error=dns_error"
    if form.startswith("text/plain"):
        assert page.body == "jwtproxy: <no> way\n"
    elif form.startswith("text/html"):
        assert "<title>502 Bad Gateway</title>" in page.body
        assert "<p>jwtproxy: &lt;no&gt; way\n" in page.body
    else:
        assert json.loads(page.body) == {
            "type": "about:blank",
            "title": "Bad Gateway",
            "status": 502,
            "detail": "<no> way",
        }


@given(st.text())
def test_any_accept_has_a_form(accept: str) -> None:
    assert "no way" in pages.in_form(pages.text(502, "no way"), accept).body


def test_other_pages_keep_their_form() -> None:
    page = pages.Page(200, "a", {"Content-Type": "text/plain"})
    assert pages.in_form(page, "text/html") is page


# --- the option


def test_the_pages_may_be_on_or_off_or_as_the_mode_wants_it() -> None:
    option, _ = pages.OPTIONS
    assert (option.name, option.check("")) == ("jwt_pages", "auto")
    assert [option.check(value) for value in ("auto", "on", "off")] == ["auto", "on", "off"]


def test_or_at_a_place_of_their_own() -> None:
    assert pages.OPTIONS[0].check("*:9090") == Place("", 9090)


@pytest.mark.parametrize("value", ["yes", "ON", "1", "127.0.0.1:0"])
def test_what_is_neither_is_an_error(value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^bad value '{value}' for jwt_pages$") as caught:
        pages.OPTIONS[0].check(value)
    assert caught.value.hint == "use one of auto, on, off, or HOST:PORT (jwt_pages or JWT_PAGES)"


@pytest.mark.parametrize(("value", "kept"), [("", 100), ("0", 0), ("1", 1), ("1000", 1000)])
def test_so_many_recent_requests_are_kept(value: str, kept: int) -> None:
    assert pages.OPTIONS[1].check(value) == kept


@pytest.mark.parametrize("value", ["-1", "1001", "many", "1.5", "99999999999"])
def test_no_more_than_that(value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^bad value '{value}' for jwt_recent$") as caught:
        pages.OPTIONS[1].check(value)
    assert caught.value.hint == "use a whole number up to 1,000, 0 for none (jwt_recent or JWT_RECENT)"
