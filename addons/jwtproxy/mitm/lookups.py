"""mitmproxy's header look-ups, made fast: each request makes some thirty, and each took a dozen calls."""

from typing import Any

from mitmproxy.http import Headers


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
