"""mitmproxy's filters as rules use them: on the dialled destination, and only on what is known in time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy import flowfilter
from mitmproxy.http import Headers, HTTPFlow
from mitmproxy.test import tflow, tutils

from jwtproxy import destination
from jwtproxy.errors import SettingsError
from jwtproxy.flow_filters import compile_filter, view

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")


def _flow(
    method: str = "GET",
    url: str = "https://api.example/",
    *fields: tuple[str, str],
    authority: bytes = b"",
    version: bytes = b"HTTP/1.1",
) -> HTTPFlow:
    scheme, _, rest = url.partition("://")
    name, _, path = rest.partition("/")
    host, port = destination.parse_authority(name.encode())
    request = tutils.treq(
        method=method.encode(),
        scheme=scheme.encode(),
        host=host,
        port=port or {"http": 80, "https": 443}[scheme],
        path=f"/{path}".encode("utf-8", "surrogateescape"),
        authority=authority,
        http_version=version,
        headers=Headers([(key.encode(), value.encode()) for key, value in fields]),
    )
    return tflow.tflow(req=request)


def _seen(flow: HTTPFlow) -> HTTPFlow:
    request = flow.request
    return view(flow, destination.normalise(request.scheme, request.host, request.port))


MATCHES = [
    ("~all", _flow(), True),
    ("~http", _flow(), True),
    ("~d ^api\\.example$", _flow(), True),
    ("~d ^api\\.example$", _flow(url="https://API.Example./"), True),
    ("~d ^api\\.example$", _flow(url="https://api.example:8443/"), True),
    ("~d ^api\\.example$", _flow(url="https://other.example/"), False),
    ("~d ^api\\.example$", _flow("GET", "https://other.example/", ("Host", "api.example")), False),
    ("~d ^other\\.example$", _flow("GET", "https://other.example/", ("Host", "api.example")), True),
    ("~d ^api\\.example$", _flow("GET", "https://other.example/", ("host", "x"), ("HOST", "api.example")), False),
    ("~d api", _flow("GET", "https://other.example/", authority=b"api.example", version=b"HTTP/2.0"), False),
    ("~d api", _flow("GET", "https://other.example/", ("Host", "api.example"), version=b"HTTP/2.0"), False),
    ("~d ^::1$", _flow(url="http://[0:0::1]:81/"), True),
    ("~u ^http://\\[::1\\]:81/$", _flow(url="http://[::1]:81/"), True),
    ("~u ^https://api\\.example/$", _flow(), True),
    ("~u ^https://api\\.example/$", _flow(url="https://api.example:443/"), True),
    ("~u ^https://api\\.example:8443/a\\?b=c$", _flow(url="https://api.example:8443/a?b=c"), True),
    ("~u ^http://", _flow(), False),
    ("~u api", _flow("GET", "https://other.example/", ("Host", "api.example")), False),
    ("~u ^https://api\\.example/admin", _flow(url="https://api.example/%61dmin"), True),
    ("~u ^https://api\\.example/admin", _flow(url="https://api.example/x/../admin"), True),
    ("~u ^https://api\\.example/admin", _flow(url="https://api.example/./%2e%2E/admin"), True),
    ("~u /a%2Fb$", _flow(url="https://api.example/a%2fb"), True),
    ("~u /caf%C3%A9$", _flow(url="https://api.example/café"), True),
    ("~u /%FF$", _flow(url="https://api.example/\udcff"), True),
    ("~u /a%7Cb%20c$", _flow(url="https://api.example/a|b c"), True),
    ("~u ^https://api\\.example$", _flow(url="https://api.example/"), False),
    ("admin", _flow(url="https://api.example/admin"), True),
    ("~m ^POST$", _flow("POST"), True),
    ("~m ^POST$", _flow("POSTS"), False),
    ("~m ^POST$", _flow("post"), True),
    ("~h x-a", _flow("GET", "https://api.example/", ("X-A", "1")), True),
    ("~hq '^x-a: 1$'", _flow("GET", "https://api.example/", ("X-A", "1")), True),
    ("~hq '^host: api.example$'", _flow("GET", "https://api.example/", ("Host", "evil.example")), True),
    ("~hq '^x-a: 1$'", _flow("GET", "https://api.example/", ("X-A", "1"), ("X-B", "2")), True),
    ("~hq '^x-a: 1$'", _flow("GET", "https://api.example/", ("X-A", "12")), False),
    ("~hq ^x-a:.1.?$", _flow("GET", "https://api.example/", ("X-A", "1")), True),
    ("~hq evil", _flow("GET", "https://api.example/", ("Host", "evil.example")), False),
    ("~hq x-a", _flow(), False),
    ("~t json", _flow("GET", "https://api.example/", ("Content-Type", "application/json")), True),
    ("~tq json", _flow("GET", "https://api.example/", ("Content-Type", "text/plain")), False),
    ("~src ^127\\.0\\.0\\.1:", _flow(), True),
    ("~src ^10\\.", _flow(), False),
    ("~d a & ~m GET", _flow(), True),
    ("~d a & !~m GET", _flow(), False),
    ("~d nowhere | ~m GET", _flow(), True),
    ("!(~d nowhere | ~m POST)", _flow(), True),
    ("~d a ~m GET", _flow(), True),
    ("~d '^(api|pay)[.]example$'", _flow(), True),
    ('~d "^api\\\\.example$"', _flow(), True),
    ("~u 'x=1&'", _flow(url="https://api.example/?x=1&y=2"), True),
    ("( ( ~all ) )", _flow(), True),
]


@pytest.mark.parametrize(("text", "flow", "matches"), MATCHES)
def test_filters_see_the_dialled_destination_in_one_spelling(text: str, flow: HTTPFlow, matches: bool) -> None:
    assert bool(compile_filter(text)(_seen(flow))) is matches


def test_an_asterisk_is_no_path() -> None:
    flow = _flow("OPTIONS")
    flow.request.path = "*"
    assert _seen(flow).request.pretty_url == "https://api.example"


def test_a_view_leaves_the_flow_as_it_is_and_has_no_body() -> None:
    flow = _flow("POST", "https://API.example/%61", ("Host", "b"), ("X-A", "1"), ("host", "c"))
    before = flow.request.get_state()
    seen = _seen(flow)
    assert flow.request.get_state() == before
    assert seen.request.headers.fields == ((b"Host", b"api.example"), (b"X-A", b"1"))
    assert seen.request.raw_content is None
    assert seen.client_conn is flow.client_conn
    assert (seen.request.host, seen.request.pretty_host, seen.request.authority) == ("api.example", "api.example", "")


# Those that are made for answers, bodies, marks and other protocols, and one that is always true.
USELESS = "a b bq bs c comment dns dst e hs marked marker meta q replay replayq replays s tcp ts udp websocket".split()


def _spelled(code: str) -> str:
    wants = {**dict.fromkeys("b bq bs comment dst hs marker meta ts".split(), " x"), "c": " 200"}
    return f"~{code}{wants.get(code, '')}"


def test_every_filter_of_mitmproxy_is_either_usable_or_refused() -> None:
    codes = {operator.split()[0][1:] for operator, _ in flowfilter.help if operator.startswith("~")}
    assert codes - set(USELESS) == {"all", "http", "d", "u", "m", "h", "hq", "t", "tq", "src"}


@pytest.mark.parametrize("code", USELESS)
@pytest.mark.parametrize("around", ["{}", "!{}", "~d a & ( ~m GET | {} )"])
def test_what_is_not_known_in_time_is_refused(code: str, around: str) -> None:
    text = around.format(_spelled(code))
    with pytest.raises(SettingsError) as caught:
        compile_filter(text)
    assert str(caught.value).startswith(f"bad filter {text!r}: ~{code} cannot decide how a request is signed: ")
    assert caught.value.hint


MISTAKES = [
    ("", "the filter is blank", "~all"),
    (" \n", "the filter is blank", "~all"),
    ("~d", "it ends too early", "~d, ~u"),
    ("~d a & ~m", "it makes no sense from '~m' on", "~d, ~u"),
    ("~dd x", "it makes no sense from 'd x' on", "~d, ~u"),
    ("~D x", "it makes no sense from '~D x' on", "~d, ~u"),
    ("(~all)", "it makes no sense from ')' on", "a space between ~all and )"),
    ("~d (a|b)", "it makes no sense from '(a|b)' on", "quotes"),
    ("~d a~b", "it makes no sense from '~b' on", "quotes"),
    ("~d 'a", """it makes no sense from "'a" on""", "quotes"),
    ("()", "it makes no sense from ')' on", "quotes"),
    ("~d [", "'[' is no regular expression: unterminated character set at position 0", "'.*'"),
    ("~m *", "'*' is no regular expression: nothing to repeat at position 0", "'.*'"),
    ("~d *.example", "'*.example' is no regular expression: nothing to repeat at position 0", "'.*'"),
    ("~u '(a'", "'(a' is no regular expression: missing )", "'.*'"),
    ("~d ''", "the pattern of ~d is blank and matches everything", "~all"),
    ("~hq ' '", "the pattern of ~hq is blank and matches everything", "~all"),
    ("~d a& ~m POST", "'a&' is one pattern here, with the operator in it", "a space between"),
    ("~d a&~m POST", "'a&' is one pattern here, with the operator in it", "a space between"),
    ("~d a| ~d b", "'a|' is one pattern here, with the operator in it", "a space between"),
    ("~d |a", "'|a' is one pattern here, with the operator in it", "a space between"),
    ("~d !a", "'!a' is one pattern here, with the operator in it", "a space between"),
    ("~d a && ~m POST", "'&' stands where a pattern should", "one & or |"),
    ("~d a || ~d b", "'|' stands where a pattern should", "one & or |"),
    ("~d a |", "'|' stands where a pattern should", "one & or |"),
    ("& ~d a", "'&' stands where a pattern should", "one & or |"),
    ("!", "'!' stands where a pattern should", "one & or |"),
    ("~d a and ~m POST", "'and' is a pattern here, not an operator", "&, | or !"),
    ("~d a OR ~d b", "'OR' is a pattern here, not an operator", "&, | or !"),
    ("not ~d a", "'not' is a pattern here, not an operator", "&, | or !"),
    ("!!~d a", "one ! after another", "cancel"),
    ("! ! ~d a", "one ! after another", "cancel"),
    ("((((( ~all )))))", "parentheses are nested more than 4 deep", "several rules"),
    ("~d ^(pay|vault)[.]example$", "mitmproxy ends a pattern at a parenthesis", "in quotes"),
    ("~u ^https://api[.]example/(v1|v2)/", "mitmproxy ends a pattern at a parenthesis", "in quotes"),
    ("( ~d a )b", "mitmproxy ends a pattern at a parenthesis", "in quotes"),
    ('~d "^api\\.example$"', "in quotes, mitmproxy drops a backslash", "double it"),
    ("~u '\\d+'", "in quotes, mitmproxy drops a backslash", "double it"),
    (
        "~d bücher\\.example",
        "no host is spelled 'bücher\\\\.example': hosts are looked at in ASCII",
        "xn--bcher-kva for",
    ),
    ("~d 例え.テスト", "no host is spelled '例え.テスト'", "xn--r8jz45g for 例え, xn--zckzah for テスト"),
    ("~d …", "no host is spelled '…'", "as it is in DNS"),
    ("~d https://api.example", "~d looks at the host alone, never at 'https://api.example'", "use ~u"),
    ("~d api.example/x", "~d looks at the host alone, never at 'api.example/x'", "use ~u"),
    ("~d ^api\\.example:8443$", "~d looks at the host alone, never at '^api\\\\.example:8443$'", "use ~u"),
    ("~d localhost:\\d+", "~d looks at the host alone, never at 'localhost:\\\\d+'", "use ~u"),
    ("~u /café", "no URL is spelled '/café'", "%C3%A9"),
    ("~u ^https://api\\.example:443/", "no URL is spelled 'https://api\\\\.example:443'", "leave out the port"),
    ("~u http://api.example:80", "no URL is spelled 'http://api.example:80'", "leave out the port"),
]


@pytest.mark.parametrize(("text", "said", "hint"), MISTAKES)
def test_what_is_no_filter_or_does_not_do_what_it_says_is_refused(text: str, said: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        compile_filter(text)
    assert said in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "~d ^::1$",
        "~d ^fe80::1:8080$",
        "~d '^(?:a|b)$'",
        "~u :8443/",
        "~u ^http://api\\.example:8080/",
        "~u ^http://api\\.example:443/",
        "~u ^https?://api\\.example:443/",
        "~u 'x&' & ~m GET",
        "~d a &!~m POST",
        "~d a |~d b",
        "((((~all ))))",
        "~hq and",
    ],
)
def test_what_only_looks_like_a_slip_is_taken(text: str) -> None:
    try:
        compile_filter(text)
    except SettingsError as error:
        pytest.fail(f"{error}")


PIECES = [*"~d ~u ~m ~hq ~all ~q ~c ! ( ) a 1 ' \" \\ [ * é".split(), " ", " ", "& ", "| "]


@settings(max_examples=200)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_nothing_but_a_settings_error_is_ever_raised(text: str) -> None:
    try:
        matches = compile_filter(text)
    except SettingsError:
        return
    matches(_seen(_flow()))
