"""mitmproxy's flow filters, as rules may use them: on what is known of a request before it is signed."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from mitmproxy import flowfilter
from mitmproxy.http import Headers, HTTPFlow, Request
from pyparsing import ParseException

from .destination import Destination, normal_path, normalise
from .errors import SettingsError

_MOST_NESTED = 4
"""Of parentheses; the time that mitmproxy's parser takes is four times as long for each more."""

_KNOWN = frozenset("all http d u m h hq t tq src".split())
_USABLE = "use ~d, ~u, ~m, ~hq, ~tq, ~src and ~all, with &, |, ! and ( )"
_ANSWER = "it looks at the answer"
_BODY = "it looks at the body, which may still be on its way"
_NOTE = "it looks at marks that are set by hand or later"
_OTHER = "it looks for flows that are not HTTP requests"
_REPLAY = "whether a request is replayed is not what it is signed by"
_UNKNOWN = {
    **dict.fromkeys(("a", "c", "e", "s", "hs", "ts", "replays"), (_ANSWER, _USABLE)),
    **dict.fromkeys(("b", "bq", "bs"), (_BODY, _USABLE)),
    **dict.fromkeys(("meta", "marked", "marker", "comment"), (_NOTE, _USABLE)),
    **dict.fromkeys(("tcp", "udp", "dns"), (_OTHER, _USABLE)),
    **dict.fromkeys(("replay", "replayq"), (_REPLAY, _USABLE)),
    "q": ("no request has its answer yet", "leave it out: it would be true of every request"),
    "websocket": (
        "it looks at a WebSocket that is open",
        "use ~hq ^upgrade:.?websocket for the request that opens one",
    ),
    "dst": ("it looks at the connection, which may not be there yet", "use ~d for the host, ~u for host and port"),
}

_SYNTAX = "put a pattern with spaces, quotes, ~ or ( ) in quotes, and a space between ~all and )"
_QUOTED = re.compile(r"""(["'])((?:\\.|(?!\1).)*)\1""", re.DOTALL)
_DROPPED_BACKSLASH = re.compile(r"""\\[^\\"']""")  # after pairs are gone
_CUT = re.compile(r"[^\s&|!(]\(|\)[^\s&|)]")
_WORDS = frozenset(("and", "or", "not"))
_IMPLIED_PORT = re.compile(r"http://[^/]*:80(?!\d)|https://[^/]*:443(?!\d)")
_NOT_IN_URLS = re.compile(r"[^A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]")  # RFC 3986 §2
_PORT = re.compile(r"[^:]*[^:\\?]\\?:(\d+|\\d.*)\$?")


def compile_filter(text: str) -> Callable[[HTTPFlow], object]:
    """A test for requests. Raises SettingsError for what is no filter, or cannot do what it seems to say."""
    _check_text(text)
    try:
        parsed = flowfilter.parse(text)
    except ValueError as error:
        raise _bad(text, *_explain(text, error)) from None
    for leaf in _leaves(parsed):
        _check_kind(text, leaf)
        if isinstance(expression := getattr(leaf, "expr", None), str):
            _check_pattern(text, leaf.code, expression)
    return parsed


def view(flow: HTTPFlow, destination: Destination) -> HTTPFlow:
    """The flow as filters see it: the destination that is dialled, in its one spelling, and no other; no body."""
    sent = flow.request
    seen = HTTPFlow.__new__(HTTPFlow)  # no more than the filters of _KNOWN look at; this is done for each request
    seen.client_conn = flow.client_conn
    fields = [field for field in sent.data.headers.fields if len(field[0]) != 4 or field[0].lower() != b"host"]
    seen.request = _Seen(sent, destination, ((b"Host", destination.authority.encode()), *fields))
    return seen


class _Seen(Request):
    """A request whose names for its destination all agree."""

    def __init__(self, sent: Request, destination: Destination, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        headers = _Lines()
        headers.fields = fields
        path = _NOT_IN_URLS.sub(_escape, normal_path(sent.path)).encode()
        scheme, host, port = destination
        data = sent.data
        super().__init__(
            host, port, data.method, scheme.encode(), b"", path, data.http_version, headers, None, None, 0.0, None
        )
        self._origin = destination.origin

    @property
    def pretty_host(self) -> str:
        return self.data.host

    @property
    def pretty_url(self) -> str:
        path = self.path
        return self._origin if path == "*" else self._origin + path


class _Lines(Headers):
    """Header fields in which `$` finds the end of a value: in mitmproxy's, a carriage return stands before it."""

    def __bytes__(self) -> bytes:
        return b"".join([b"%s: %s\n" % field for field in self.fields])


def _escape(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))


def _bad(text: str, reason: str, hint: str) -> SettingsError:
    return SettingsError(f"bad filter {text!r}: {reason}", hint)


def _check_text(text: str) -> None:
    """Refuse what mitmproxy would read for minutes, or otherwise than it is written."""
    if not text.strip():
        raise SettingsError("the filter is blank", "use ~all for every request")
    for quoted in _QUOTED.finditer(text):
        if _DROPPED_BACKSLASH.search(quoted[2].replace("\\\\", "")):
            raise _bad(
                text, "in quotes, mitmproxy drops a backslash", "double it, or take the pattern out of its quotes"
            )
    if cut := _CUT.search(_QUOTED.sub("''", text)):
        hint = "put the whole pattern in quotes, and double its backslashes"
        raise _bad(text, f"mitmproxy ends a pattern at a parenthesis, as in {cut[0]!r}", hint)
    bare = "".join(_QUOTED.sub("", text).split())
    depth = deepest = 0
    for character in bare:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if deepest > _MOST_NESTED:
        raise _bad(text, f"parentheses are nested more than {_MOST_NESTED} deep", "make several rules of it")
    if "!!" in bare:
        raise _bad(text, "one ! after another", "leave both out: they cancel each other")


def _explain(text: str, error: ValueError) -> tuple[str, str]:
    """What mitmproxy keeps to itself: why it found the filter invalid."""
    cause = error.__cause__
    if isinstance(cause, ParseException):
        rest = text[cause.loc :].strip()
        return (f"it makes no sense from {rest[:40]!r} on" if rest else "it ends too early"), f"{_SYNTAX}; {_USABLE}"
    context = getattr(cause, "__context__", None)
    if isinstance(context, re.error):
        raw = context.pattern
        pattern = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
        return f"{pattern!r} is no regular expression: {context}", "write '.*' for any characters, '\\.' for a dot"
    return "mitmproxy cannot read it", f"{_SYNTAX}; {_USABLE}"


def _leaves(node: Any) -> Iterator[Any]:
    """The operators that and, or and not combine."""
    inner = getattr(node, "lst", None) or ([node.itm] if hasattr(node, "itm") else [])
    if not inner:
        yield node
    for part in inner:
        yield from _leaves(part)


def _check_kind(text: str, leaf: Any) -> None:
    code = getattr(leaf, "code", "?")
    if code not in _KNOWN:
        reason, hint = _UNKNOWN.get(code, ("it is unknown here", _USABLE))
        raise _bad(text, f"~{code} cannot decide how a request is signed: {reason}", hint)


def _check_pattern(text: str, code: str, pattern: str) -> None:
    """Refuse patterns that match always or never, by a slip that is easily made."""
    if not pattern.strip():
        raise _bad(text, f"the pattern of ~{code} is blank and matches everything", "use ~all for every request")
    if f"'{pattern}'" not in text and f'"{pattern}"' not in text:
        _check_operators(text, code, pattern)
    if code == "d":
        _check_domain(text, pattern)
    if code == "u":
        _check_url(text, pattern)


def _check_operators(text: str, code: str, pattern: str) -> None:
    """A word without quotes: operators that touch it are part of it, and `and` is a pattern for URLs."""
    if code == "u" and pattern.lower() in _WORDS:
        raise _bad(text, f"{pattern!r} is a pattern here, not an operator", "write &, | or !")
    if not pattern.strip("&|!"):
        raise _bad(text, f"{pattern!r} stands where a pattern should", "write one & or | between two parts")
    if pattern[0] in "&|!" or pattern[-1] in "&|":
        hint = "put a space between pattern and operator, or the pattern in quotes"
        raise _bad(text, f"{pattern!r} is one pattern here, with the operator in it", hint)


def _check_domain(text: str, pattern: str) -> None:
    """A pattern for hosts, which are in lower case and ASCII, without scheme, port and path."""
    if not pattern.isascii():
        raise _bad(text, f"no host is spelled {pattern!r}: hosts are looked at in ASCII", _in_ascii(pattern))
    if "/" in pattern or _PORT.fullmatch(pattern):
        hint = "use ~u for scheme, host, port and path: ~u ^https://api\\.example:8443/"
        raise _bad(text, f"~d looks at the host alone, never at {pattern!r}", hint)


def _check_url(text: str, pattern: str) -> None:
    """A pattern for URLs, which are in ASCII too, and name no port that the scheme implies."""
    if not pattern.isascii():
        hint = "write hosts as in DNS (xn--…), and paths with escapes (%C3%A9)"
        raise _bad(text, f"no URL is spelled {pattern!r}: URLs are looked at in ASCII", hint)
    if implied := _IMPLIED_PORT.search(pattern):
        raise _bad(text, f"no URL is spelled {implied[0]!r}: its port is the scheme's own", "leave out the port")


def _in_ascii(pattern: str) -> str:
    """How to spell a pattern's names (RFC 5891 §4.4)."""
    try:
        spelled = {name: normalise("http", name, 80).host for name in re.findall(r"\w*[^\W\x00-\x7f][\w-]*", pattern)}
    except ValueError:
        spelled = {}
    names = ", ".join(f"{ascii_name} for {name}" for name, ascii_name in spelled.items())
    return f"write {names}" if names else "write the name as it is in DNS, such as xn--bcher-kva"
