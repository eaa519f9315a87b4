"""mitmproxy's look-ups of headers and options, made fast: each request makes some forty, of a dozen calls each."""

import copy
from typing import Any

from hyperframe.frame import Frame
from mitmproxy.http import Headers
from mitmproxy.optmanager import _Option, unset

_PLAIN = frozenset((bool, int, float, str, type(None)))
"""Types of values that nobody can change, so that they need no copy."""


def get_all(self: Headers, name: str | bytes) -> list[str]:
    """Every value of a header, in order."""
    key = (name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name).lower()
    size = len(key)
    return [
        value.decode("utf-8", "surrogateescape")
        for field, value in self.fields
        if len(field) == size and field.lower() == key
    ]


def get(self: Headers, name: str | bytes, default: Any = None) -> Any:
    """The values of a header, folded into one; the default if there is none."""
    values = get_all(self, name)
    return ", ".join(values) if values else default


def contains(self: Headers, name: object) -> bool:
    """Whether there is such a header."""
    return isinstance(name, (str, bytes)) and bool(get_all(self, name))


def agree() -> bool:
    """Whether mitmproxy's own would find the same."""
    sample = Headers([(b"A", b"1"), (b"b", b"\xe2\x82\xac\xff"), (b"a", b"2")])
    return all(
        (sample.get_all(name), sample.get(name), name in sample)
        == (get_all(sample, name), get(sample, name), contains(sample, name))
        for name in ("a", b"A", "b", "c", "")
    )


def current(self: _Option) -> Any:
    """The value of an option."""
    value = self._default if self.value is unset else self.value
    return value if type(value) in _PLAIN else copy.deepcopy(value)


def options_agree() -> bool:
    """Whether mitmproxy's own would be the same."""
    plain, several = _Option("a", int, 1, "", None), _Option("b", object, ["a"], "", None)
    before = all(one.current() == current(one) for one in (plain, several))
    plain.set(2)
    return before and plain.current() == current(plain) == 2 and current(several) is not current(several)


def describe(self: Frame) -> str:
    """An HTTP/2 frame, as h2 writes out each for a log that nearly always nobody keeps."""
    return f"{type(self).__name__}(stream_id={self.stream_id})"
