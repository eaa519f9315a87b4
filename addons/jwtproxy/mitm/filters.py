"""mitmproxy's flow filters, as rules may use them: on what is known of a request before it is signed.

mitmproxy parses them; what comes of that is translated to functions of a RequestHead, which need no flow.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from mitmproxy import flowfilter
from pyparsing import ParseException

from ..conduct.destination import normalise
from ..conduct.request import Matcher
from ..config.errors import SettingsError

_MOST_NESTED = 4
"""Of parentheses; the time that mitmproxy's parser takes is four times as long for each more."""

_USABLE = "use ~d, ~u, ~m, ~hq, ~tq, ~src and ~all, with &, |, ! and ( )"
_ANSWER = "it matches the response"
_BODY = "it needs the body, which may not have arrived yet"
_NOTE = "it matches marks that are set later or by hand"
_OTHER = "it matches flows other than HTTP requests"
_REPLAY = "signing does not depend on whether a request is replayed"
_UNKNOWN = {
    **dict.fromkeys(("a", "c", "e", "s", "hs", "ts", "replays"), (_ANSWER, _USABLE)),
    **dict.fromkeys(("b", "bq", "bs"), (_BODY, _USABLE)),
    **dict.fromkeys(("meta", "marked", "marker", "comment"), (_NOTE, _USABLE)),
    **dict.fromkeys(("tcp", "udp", "dns"), (_OTHER, _USABLE)),
    **dict.fromkeys(("replay", "replayq"), (_REPLAY, _USABLE)),
    "q": ("no request has its response yet", "leave it out: it would match every request"),
    "websocket": (
        "it matches only an open WebSocket",
        "use ~hq ^upgrade:.?websocket for the request that opens one",
    ),
    "dst": ("it matches the upstream connection, which may not exist yet", "use ~d for the host, ~u for host and port"),
}

_SYNTAX = "put a pattern with spaces, quotes, ~ or ( ) in quotes, and a space between ~all and )"
_QUOTED = re.compile(r"""(["'])((?:\\.|(?!\1).)*)\1""", re.DOTALL)
_DROPPED_BACKSLASH = re.compile(r"""\\[^\\"']""")  # after pairs are gone
_CUT = re.compile(r"[^\s&|!(]\(|\)[^\s&|)]")
_BEGUN = re.compile(r"~\w*$")
_OPERATOR = re.compile(r"^~(?:all|http|d|u|m|hq?|tq?|src)(?!\w)")
_WORDS = frozenset(("and", "or", "not"))
_IMPLIED_PORT = re.compile(r"http://[^/]*:80(?!\d)|https://[^/]*:443(?!\d)")
_PORT = re.compile(r"[^:]*[^:\\?]\\?:(\d+|\\d.*)\$?")


def compile_filter(text: str) -> Matcher:
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
    return _translate(parsed)


def _translate(node: Any) -> Matcher:
    """What mitmproxy's parser made of a filter, as a function of a request's head."""
    if isinstance(node, flowfilter.FNot):
        inner = _translate(node.itm)
        return lambda head: not inner(head)
    if isinstance(node, (flowfilter.FAnd, flowfilter.FOr)):
        parts = [_translate(part) for part in node.lst]
        joined = all if isinstance(node, flowfilter.FAnd) else any
        return lambda head: joined(part(head) for part in parts)
    return _TESTS[node.code](node.re.search if hasattr(node, "re") else None)


def _content_type(search: Any) -> Matcher:
    return lambda head: any(name.lower() == b"content-type" and search(value) for name, value in head.fields)


def _source(search: Any) -> Matcher:
    return lambda head: head.client and search(f"{head.client[0]}:{head.client[1]}")


# By the code of a leaf: its test, made of the search for its pattern. `~h` and `~t` look at answers too, of which
# there is none yet.
_TESTS: dict[str, Callable[[Any], Matcher]] = {
    "all": lambda _: lambda head: True,
    "http": lambda _: lambda head: True,
    "d": lambda search: lambda head: search(head.destination.host),
    "u": lambda search: lambda head: search(head.url),
    "m": lambda search: lambda head: search(head.method),
    "h": lambda search: lambda head: search(head.lines),
    "hq": lambda search: lambda head: search(head.lines),
    "t": _content_type,
    "tq": _content_type,
    "src": _source,
}


def _bad(text: str, reason: str, hint: str) -> SettingsError:
    return SettingsError(f"bad filter {text!r}: {reason}", hint)


def _check_text(text: str) -> None:
    """Refuse what mitmproxy would read for minutes, or otherwise than it is written."""
    if not text.strip():
        raise SettingsError("the filter is blank", "use ~all for every request")
    if (last := text.split()[-1]) in ("&", "|", "!"):
        raise _misplaced(text, last)
    for quoted in _QUOTED.finditer(text):
        if _DROPPED_BACKSLASH.search(quoted[2].replace("\\\\", "")):
            raise _bad(text, "mitmproxy drops a backslash inside quotes", "double it, or remove the quotes")
    if cut := _CUT.search(_QUOTED.sub("''", text)):
        hint = "put the whole pattern in quotes, and double its backslashes"
        raise _bad(text, f"mitmproxy ends a pattern at a parenthesis, as in {cut[0]!r}", hint)
    _check_nesting(text, "".join(_QUOTED.sub("", text).split()))


def _check_nesting(text: str, bare: str) -> None:
    """Refuse parentheses that take long to parse, and a repeated `!`. `bare`: the text without quoted patterns."""
    depth = deepest = 0
    for character in bare:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if deepest > _MOST_NESTED:
        raise _bad(text, f"parentheses are nested more than {_MOST_NESTED} deep", "split it into several rules")
    if "!!" in bare:
        raise _bad(text, "two ! in a row", "leave both out: they cancel each other")


def _explain(text: str, error: ValueError) -> tuple[str, str]:
    """What mitmproxy keeps to itself: why it found the filter invalid."""
    cause = error.__cause__
    if isinstance(cause, ParseException):
        rest = _unparsed(text, cause.loc)
        return (f"it cannot be parsed from {rest[:40]!r} on" if rest else "it ends too early"), f"{_SYNTAX}; {_USABLE}"
    context = getattr(cause, "__context__", None)
    if isinstance(context, re.error):
        raw = context.pattern
        pattern = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
        return f"{pattern!r} is not a regular expression: {context}", "write '.*' for any characters, '\\.' for a dot"
    return "mitmproxy cannot parse it", f"{_SYNTAX}; {_USABLE}"


def _unparsed(text: str, place: int) -> str:
    """What a parser that stopped there could not read; some pyparsings stop before an operator, some behind it."""
    start = _BEGUN.search(text[:place])
    rest = text[start.start() if start else place :]
    return _OPERATOR.sub("", rest).strip()


def _leaves(node: Any) -> Iterator[Any]:
    """The operators that and, or and not combine."""
    inner = getattr(node, "lst", None) or ([node.itm] if hasattr(node, "itm") else [])
    if not inner:
        yield node
    for part in inner:
        yield from _leaves(part)


def _check_kind(text: str, leaf: Any) -> None:
    code = getattr(leaf, "code", "?")
    if code not in _TESTS:
        reason, hint = _UNKNOWN.get(code, ("it is not supported here", _USABLE))
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
        raise _misplaced(text, pattern)
    if pattern[0] in "&|!" or pattern[-1] in "&|":
        hint = "put a space between pattern and operator, or the pattern in quotes"
        raise _bad(text, f"{pattern!r} is a single pattern here, operator included", hint)


def _misplaced(text: str, operator: str) -> SettingsError:
    return _bad(text, f"{operator!r} stands where a pattern should be", "write one & or | between two parts")


def _check_domain(text: str, pattern: str) -> None:
    """A pattern for hosts, which are in lower case and ASCII, without scheme, port and path."""
    if not pattern.isascii():
        raise _bad(text, f"no host matches {pattern!r}: hosts are compared in ASCII", _in_ascii(pattern))
    if "/" in pattern or _PORT.fullmatch(pattern):
        hint = "use ~u for scheme, host, port and path: ~u ^https://api\\.example:8443/"
        raise _bad(text, f"~d matches the host alone, never {pattern!r}", hint)


def _check_url(text: str, pattern: str) -> None:
    """A pattern for URLs, which are in ASCII too, and name no port that the scheme implies."""
    if not pattern.isascii():
        hint = "write hosts as in DNS (xn--…), and paths with escapes (%C3%A9)"
        raise _bad(text, f"no URL matches {pattern!r}: URLs are compared in ASCII", hint)
    if implied := _IMPLIED_PORT.search(pattern):
        raise _bad(text, f"no URL matches {implied[0]!r}: the scheme's default port is left out", "leave out the port")


def _in_ascii(pattern: str) -> str:
    """How to spell a pattern's names (RFC 5891 §4.4)."""
    try:
        spelled = {name: normalise("http", name, 80).host for name in re.findall(r"\w*[^\W\x00-\x7f][\w-]*", pattern)}
    except ValueError:
        spelled = {}
    names = ", ".join(f"{ascii_name} for {name}" for name, ascii_name in spelled.items())
    return f"write {names}" if names else "write the name as it is in DNS, such as xn--bcher-kva"
