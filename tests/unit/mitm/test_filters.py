"""mitmproxy's filters as rules use them: on the dialled destination, and only on what is known in time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy import flowfilter
from mitmproxy.http import Headers, HTTPFlow
from mitmproxy.test import tflow, tutils

from jwtproxy.conduct import destination
from jwtproxy.conduct.request import RequestHead
from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm.filters import compile_filter

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")


def _head(
    method: str = "GET",
    url: str = "https://api.example/",
    *fields: tuple[str, str],
    version: bytes = b"HTTP/1.1",
    client: tuple[str, int] | None = ("127.0.0.1", 22),
) -> RequestHead:
    scheme, _, rest = url.partition("://")
    name, _, path = rest.partition("/")
    host, port = destination.parse_authority(name.encode())
    return RequestHead(
        method.encode(),
        scheme,
        host,
        port or destination.DEFAULT_PORTS[scheme],
        f"/{path}".encode("utf-8", "surrogateescape"),
        tuple((key.encode(), value.encode()) for key, value in fields),
        client,
        http_version=version,
    )


MATCHES = [
    ("~all", _head(), True),
    ("~http", _head(), True),
    ("~d ^api\\.example$", _head(), True),
    ("~d ^api\\.example$", _head(url="https://API.Example./"), True),
    ("~d ^api\\.example$", _head(url="https://api.example:8443/"), True),
    ("~d ^api\\.example$", _head(url="https://other.example/"), False),
    ("~d ^api\\.example$", _head("GET", "https://other.example/", ("Host", "api.example")), False),
    ("~d ^other\\.example$", _head("GET", "https://other.example/", ("Host", "api.example")), True),
    ("~d ^api\\.example$", _head("GET", "https://other.example/", ("host", "x"), ("HOST", "api.example")), False),
    ("~d api", _head("GET", "https://other.example/", ("Host", "api.example"), version=b"HTTP/2.0"), False),
    ("~d ^::1$", _head(url="http://[0:0::1]:81/"), True),
    ("~u ^http://\\[::1\\]:81/$", _head(url="http://[::1]:81/"), True),
    ("~u ^https://api\\.example/$", _head(), True),
    ("~u ^https://api\\.example/$", _head(url="https://api.example:443/"), True),
    ("~u ^https://api\\.example:8443/a\\?b=c$", _head(url="https://api.example:8443/a?b=c"), True),
    ("~u ^http://", _head(), False),
    ("~u api", _head("GET", "https://other.example/", ("Host", "api.example")), False),
    ("~u ^https://api\\.example/admin", _head(url="https://api.example/%61dmin"), True),
    ("~u ^https://api\\.example/admin", _head(url="https://api.example/x/../admin"), True),
    ("~u ^https://api\\.example/admin", _head(url="https://api.example/./%2e%2E/admin"), True),
    ("~u /a%2Fb$", _head(url="https://api.example/a%2fb"), True),
    ("~u /caf%C3%A9$", _head(url="https://api.example/café"), True),
    ("~u /%FF$", _head(url="https://api.example/\udcff"), True),
    ("~u /a%7Cb%20c$", _head(url="https://api.example/a|b c"), True),
    ("~u ^https://api\\.example$", _head(url="https://api.example/"), False),
    ("admin", _head(url="https://api.example/admin"), True),
    ("~m ^POST$", _head("POST"), True),
    ("~m ^POST$", _head("POSTS"), False),
    ("~m ^POST$", _head("post"), True),
    ("~h x-a", _head("GET", "https://api.example/", ("X-A", "1")), True),
    ("~hq '^x-a: 1$'", _head("GET", "https://api.example/", ("X-A", "1")), True),
    ("~hq '^host: api.example$'", _head("GET", "https://api.example/", ("Host", "evil.example")), True),
    ("~hq '^x-a: 1$'", _head("GET", "https://api.example/", ("X-A", "1"), ("X-B", "2")), True),
    ("~hq '^x-a: 1$'", _head("GET", "https://api.example/", ("X-A", "12")), False),
    ("~hq ^x-a:.1.?$", _head("GET", "https://api.example/", ("X-A", "1")), True),
    ("~hq evil", _head("GET", "https://api.example/", ("Host", "evil.example")), False),
    ("~hq x-a", _head(), False),
    ("~t json", _head("GET", "https://api.example/", ("Content-Type", "application/json")), True),
    ("~tq json", _head("GET", "https://api.example/", ("Content-Type", "text/plain")), False),
    ("~src ^127\\.0\\.0\\.1:", _head(), True),
    ("~src ^10\\.", _head(), False),
    ("~d a & ~m GET", _head(), True),
    ("~d a & !~m GET", _head(), False),
    ("~d nowhere | ~m GET", _head(), True),
    ("!(~d nowhere | ~m POST)", _head(), True),
    ("~d a ~m GET", _head(), True),
    ("~d '^(api|pay)[.]example$'", _head(), True),
    ('~d "^api\\\\.example$"', _head(), True),
    ("~u 'x=1&'", _head(url="https://api.example/?x=1&y=2"), True),
    ("( ( ~all ) )", _head(), True),
]


@pytest.mark.parametrize(("text", "head", "matches"), MATCHES)
def test_filters_see_the_dialled_destination_in_one_spelling(text: str, head: RequestHead, matches: bool) -> None:
    assert bool(compile_filter(text)(head)) is matches


def test_where_the_client_is_unknown_no_source_matches() -> None:
    assert not compile_filter("~src .")(_head(client=None))
    assert compile_filter("~src ^127\\.0\\.0\\.1:22$")(_head())


def test_an_asterisk_is_no_path() -> None:
    head = RequestHead(b"OPTIONS", "https", "api.example", 443, b"*", ())
    assert compile_filter("~u ^https://api\\.example$")(head)


def test_a_filter_cannot_tell_what_cannot_be_dialled() -> None:
    head = RequestHead(b"GET", "http", "a b", 80, b"/", ())
    for text in ("~d a", "~u a", "~hq a"):
        with pytest.raises(ValueError, match="host"):
            compile_filter(text)(head)
    assert compile_filter("~m GET")(head)


# --- mitmproxy's own evaluation


class _Lines(Headers):
    """Header fields in which `$` finds the end of a value: in mitmproxy's, a carriage return stands before it."""

    def __bytes__(self) -> bytes:
        return b"".join([b"%s: %s\n" % field for field in self.fields])


def _as_flow(head: RequestHead) -> HTTPFlow:
    """A flow that says what the head does, everything being in its one spelling."""
    target = head.destination
    headers = _Lines([(b"Host", target.authority.encode()), *(one for one in head.fields if one[0].lower() != b"host")])
    path = head.url.removeprefix(target.origin).encode()
    request = tutils.treq(method=head.method, scheme=target.scheme.encode(), host=target.host, port=target.port)
    request.data.path, request.data.authority, request.data.headers = path, b"", headers
    request.data.http_version = head.http_version
    flow = tflow.tflow(req=request)
    if head.client:
        flow.client_conn.peername = head.client
    return flow


LEAVES = (
    *"~all ~http".split(),
    *(f"~d {pattern}" for pattern in "api ^api\\.example$ EXAMPLE$ other 10\\.0 ^[a-m]".split()),
    *(f"~u {pattern}" for pattern in "^https: ^http://api :8443/ /admin$ caf%C3%A9 \\?b=c ADMIN 'x=1&'".split()),
    *(f"~m {pattern}" for pattern in "GET ^POST$ S$ ^p".split()),
    *(f"~{code} {pattern}" for code in "h hq".split() for pattern in "x-a ^x-a:.1$ host:.api ^X-B '1$' evil".split()),
    *(f"~{code} {pattern}" for code in "t tq".split() for pattern in "json ^text/ xml".split()),
    *(f"~src {pattern}" for pattern in "^127\\. :22$ 10\\.1\\.1".split()),
)
URLS = (
    *"http://api.example/ https://API.example./admin https://api.example:8443/a?b=c http://other.example:80/".split(),
    *"https://other.example/x/../admin http://10.0.0.1/caf\xe9 http://a.example:8443/?x=1&y=2".split(),
)
FIELDS = (
    *(("Host", "evil.example"), ("host", "api.example"), ("X-A", "1"), ("x-a", "12"), ("X-B", "evil"), ("x-b", "1")),
    *(("Content-Type", "application/json"), ("content-type", "text/plain"), ("Content-Type", "text/xml")),
)


def _random_filter(random: random.Random, depth: int = 0) -> str:
    kind = random.randrange(5) if depth < 2 else 0  # each more takes the parser four times as long
    if kind == 1:
        inner = _random_filter(random, depth + 1)
        return inner if inner.startswith("!") else f"! {inner}"
    if kind > 1:
        # Side by side means `and`, which mitmproxy reads outside of parentheses only.
        joined = random.choice((" & ", " | ") if depth else (" & ", " | ", " ")).join(
            _random_filter(random, depth + 1) for _ in range(2)
        )
        return f"( {joined} )" if depth else joined
    return random.choice(LEAVES)


def _random_head(random: random.Random) -> RequestHead:
    fields = random.sample(FIELDS, random.randrange(5))
    client = random.choice((("127.0.0.1", 22), ("10.1.1.1", 50_000)))
    version = random.choice((b"HTTP/1.1", b"HTTP/2.0"))
    return _head(random.choice(("GET", "POST", "POSTS")), random.choice(URLS), *fields, version=version, client=client)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_true_of_what_it_is_true_of_to_mitmproxy(seed: int) -> None:
    generator = random.Random(seed)
    pairs = [(head, _as_flow(head)) for head in (_random_head(generator) for _ in range(50))]
    for text in (*(LEAVES if seed == 0 else ()), *(_random_filter(generator) for _ in range(20))):
        theirs, ours = flowfilter.parse(text), compile_filter(text)
        for head, flow in pairs:
            assert bool(ours(head)) == bool(theirs(flow)), f"{text!r} of {head}"


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
    ("~d a & ~m", "it ends too early", "~d, ~u"),
    ("~dd x", "it cannot be parsed from '~dd x' on", "~d, ~u"),
    ("~D x", "it cannot be parsed from '~D x' on", "~d, ~u"),
    ("(~all)", "it cannot be parsed from ')' on", "a space between ~all and )"),
    ("~d (a|b)", "it cannot be parsed from '(a|b)' on", "quotes"),
    ("~d a~b", "it cannot be parsed from '~b' on", "quotes"),
    ("~d 'a", """it cannot be parsed from "'a" on""", "quotes"),
    ("()", "it cannot be parsed from ')' on", "quotes"),
    ("~d [", "'[' is not a regular expression: unterminated character set at position 0", "'.*'"),
    ("~m *", "'*' is not a regular expression: nothing to repeat at position 0", "'.*'"),
    ("~d *.example", "'*.example' is not a regular expression: nothing to repeat at position 0", "'.*'"),
    ("~u '(a'", "'(a' is not a regular expression: missing )", "'.*'"),
    ("~d ''", "the pattern of ~d is blank and matches everything", "~all"),
    ("~hq ' '", "the pattern of ~hq is blank and matches everything", "~all"),
    ("~d a& ~m POST", "'a&' is a single pattern here, operator included", "a space between"),
    ("~d a&~m POST", "'a&' is a single pattern here, operator included", "a space between"),
    ("~d a| ~d b", "'a|' is a single pattern here, operator included", "a space between"),
    ("~d |a", "'|a' is a single pattern here, operator included", "a space between"),
    ("~d !a", "'!a' is a single pattern here, operator included", "a space between"),
    ("~d a && ~m POST", "'&' stands where a pattern should be", "one & or |"),
    ("~d a || ~d b", "'|' stands where a pattern should be", "one & or |"),
    ("~d a |", "'|' stands where a pattern should be", "one & or |"),
    ("& ~d a", "'&' stands where a pattern should be", "one & or |"),
    ("!", "'!' stands where a pattern should be", "one & or |"),
    ("~d a and ~m POST", "'and' is a pattern here, not an operator", "&, | or !"),
    ("~d a OR ~d b", "'OR' is a pattern here, not an operator", "&, | or !"),
    ("not ~d a", "'not' is a pattern here, not an operator", "&, | or !"),
    ("!!~d a", "two ! in a row", "cancel"),
    ("! ! ~d a", "two ! in a row", "cancel"),
    ("((((( ~all )))))", "parentheses are nested more than 4 deep", "several rules"),
    ("~d ^(pay|vault)[.]example$", "mitmproxy ends a pattern at a parenthesis", "in quotes"),
    ("~u ^https://api[.]example/(v1|v2)/", "mitmproxy ends a pattern at a parenthesis", "in quotes"),
    ("( ~d a )b", "mitmproxy ends a pattern at a parenthesis", "in quotes"),
    ('~d "^api\\.example$"', "mitmproxy drops a backslash inside quotes", "double it"),
    ("~u '\\d+'", "mitmproxy drops a backslash inside quotes", "double it"),
    (
        "~d bücher\\.example",
        "no host matches 'bücher\\\\.example': hosts are compared in ASCII",
        "xn--bcher-kva for",
    ),
    ("~d 例え.テスト", "no host matches '例え.テスト'", "xn--r8jz45g for 例え, xn--zckzah for テスト"),
    ("~d …", "no host matches '…'", "as it is in DNS"),
    ("~d https://api.example", "~d matches the host alone, never 'https://api.example'", "use ~u"),
    ("~d api.example/x", "~d matches the host alone, never 'api.example/x'", "use ~u"),
    ("~d ^api\\.example:8443$", "~d matches the host alone, never '^api\\\\.example:8443$'", "use ~u"),
    ("~d localhost:\\d+", "~d matches the host alone, never 'localhost:\\\\d+'", "use ~u"),
    ("~u /café", "no URL matches '/café'", "%C3%A9"),
    ("~u ^https://api\\.example:443/", "no URL matches 'https://api\\\\.example:443'", "leave out the port"),
    ("~u http://api.example:80", "no URL matches 'http://api.example:80'", "leave out the port"),
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
    matches(_head())
