"""Read a YAML 1.2 file into values that remember their line, and say where it is wrong."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from . import files
from .errors import SettingsError

_DEPTH = 32
"""How deep values may nest: more than anyone writes, less than Python recurses."""

# YAML 1.2.2 §10.3.2, the core schema: no dates, and yes, no, on and off are strings.
_NULL = ("", "~", "null", "Null", "NULL")
_FLAGS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_ENDLESS = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LONGEST = 300  # digits of an integer; Python itself stops at 4300

_QUOTE = "put the whole value in single quotes: '…'"
_HINTS = (
    ("mapping values are not allowed", f"check the indentation; or, if the value holds ': ' or ends in ':', {_QUOTE}"),
    ("unknown escape character", "use single quotes, in which a backslash is an ordinary character"),
    ("that cannot start any token", f"indent with spaces, not tabs; or {_QUOTE}"),
    ("scanning an anchor", _QUOTE),
    ("scanning an alias", _QUOTE),
    ("scanning a tag", _QUOTE),
    ("scanning a block scalar", _QUOTE),
    ("scanning a quoted scalar", "a quote is opened but never closed"),
)


@dataclass(frozen=True)
class Node:
    """One value of a file. Each of its readers raises SettingsError, which names file and line, for another kind."""

    place: str
    """As `rules.yaml:7`: the file as the user named it, and the line of the value, or of its key."""
    name: str
    """What to call it: its key, or `the file`."""
    value: "bool | int | float | str | list[Node] | dict[str, Node] | None"
    source: str = ""
    """A string, number or the like as it was written."""

    def error(self, message: str, hint: str = "") -> SettingsError:
        """The error for something wrong here; the caller raises it."""
        return SettingsError(f"{self.place}: {message}", hint)

    def mapping(self) -> "dict[str, Node]":
        """Its values by key, in order."""
        if isinstance(self.value, dict):
            return self.value
        raise self._no("a mapping of keys to values", "write each as 'key: value' on a line of its own")

    def sequence(self) -> "list[Node]":
        """Its items."""
        if isinstance(self.value, list):
            return self.value
        raise self._no("a list", "write each item on a line of its own, after '- '")

    def text(self) -> str:
        """A string that is not blank; a number counts as it was written."""
        if isinstance(self.value, bool) or not isinstance(self.value, str | int | float):
            raise self._no("a string", _QUOTE if isinstance(self.value, bool) else f"write {self.name}: and a string")
        if not self.source.strip():
            raise self.error(f"{self.name} is blank", "give it a value, or remove it")
        return self.source.rstrip("\n")  # which a block, as after '|', ends with

    def flag(self) -> bool:
        """True or false."""
        if isinstance(self.value, bool):
            return self.value
        raise self._no("true or false", "YAML 1.2 has only these two: yes, no, on and off are strings")

    def plain(self) -> Any:
        """What JSON has for it: dict, list, str, int, float, bool or None."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def _no(self, wanted: str, hint: str) -> SettingsError:
        if self.value is None:
            return self.error(f"{self.name} has no value", f"it must be {wanted}; {_QUOTE}" if self.source else hint)
        return self.error(f"{self.name} must be {wanted}, not {self.kind}", hint)

    @property
    def kind(self) -> str:
        """What it is, for people."""
        if isinstance(self.value, dict):
            return "a mapping"
        return "a list" if isinstance(self.value, list) else repr(_short(self.source))


def read(path: str) -> Node:
    """The one value of a file, mostly a mapping. Raises SettingsError."""
    try:
        text = files.read(path, repr(path)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path}:{line}: not UTF-8 text", "save the file as UTF-8") from None
    return parse(text, path)


def parse(text: str, file: str) -> Node:
    """The one value of a string. Raises SettingsError, in which the string is called `file`."""
    builder = _Builder(file)
    try:
        return builder.document(YAML(typ="safe", pure=True).parse(text))
    except SettingsError:
        raise
    except MarkedYAMLError as error:
        raise _broken(error, file) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SettingsError(f"{file}:{line}: not text: it holds a control character", "remove it") from None
    except (
        YAMLError,
        ValueError,
        OverflowError,
    ) as error:  # ruamel raises the latter for a bad \U or an endless number
        raise SettingsError(f"{file}:{builder.line}: bad YAML: {error}", "fix this line or the next") from None


def _broken(error: MarkedYAMLError, file: str) -> SettingsError:
    """What the parser says, on one line, with what may help."""
    mark = error.problem_mark or error.context_mark
    said = ": ".join(part for part in (error.context, error.problem) if part)
    hint = next((hint for words, hint in _HINTS if words in said), "check quotes, brackets and indentation")
    return SettingsError(f"{file}:{mark.line + 1 if mark else 1}: bad YAML: {' '.join(said.split())}", hint)


class _Builder:
    """Makes nodes of the parser's events: ruamel's own composer follows aliases, and recurses without a limit."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.line = 1

    def document(self, events: Iterator[Event]) -> Node:
        """The value of the only document."""
        found = None
        for event in self._counted(events):
            if isinstance(event, NodeEvent):
                found = self._node(event, events, "the file", self._place(), 0)
            elif isinstance(event, DocumentStartEvent) and found:
                raise SettingsError(f"{self._place()}: a second document begins", "keep one: remove the line '---'")
        if found is None or found.value is None:
            raise SettingsError(f"{self._file}:1: the file is empty", "write keys and values in it, or do not name it")
        return found

    def _node(self, event: Event, events: Iterator[Event], name: str, place: str, depth: int) -> Node:
        self._check(event, depth)
        if isinstance(event, SequenceStartEvent):
            items = [
                self._node(item, events, f"an item of {name}", self._place(), depth + 1)
                for item in self._until_end(events)
            ]
            return Node(place, name, items)
        if isinstance(event, MappingStartEvent):
            return Node(place, name, self._pairs(events, depth))
        assert isinstance(event, ScalarEvent)
        return self._scalar(event, name, place)

    def _pairs(self, events: Iterator[Event], depth: int) -> dict[str, Node]:
        pairs: dict[str, Node] = {}
        for event in self._until_end(events):
            place = self._place()
            key = self._node(event, events, "a key", place, depth + 1)
            if not isinstance(key.value, str):
                raise key.error(
                    "a key is not a string", "put it in quotes" if key.source else "use a plain word as a key"
                )
            value = self._node(next(self._counted(events)), events, key.value, place, depth + 1)
            if key.value in pairs:
                first = pairs[key.value].place.rpartition(":")[2]
                raise key.error(
                    f"the key {_short(key.value)!r} appears twice", f"line {first} has it already; keep one"
                )
            pairs[key.value] = value
        return pairs

    def _scalar(self, event: ScalarEvent, name: str, place: str) -> Node:
        text = event.value
        if _unpaired(text):
            raise SettingsError(f"{place}: {name} holds half of a surrogate pair", "write the character itself")
        if event.style is not None:  # quoted, or a block
            return Node(place, name, text, text)
        value = _core(text)
        if value in (math.inf, -math.inf):
            raise SettingsError(f"{place}: {name} is {_short(text)}, which is not a number in JSON", "put it in quotes")
        return Node(place, name, value, text)

    def _check(self, event: Event, depth: int) -> None:
        """Refuse what is more than a value."""
        assert isinstance(event, NodeEvent)
        if event.anchor:
            sign = "*" if isinstance(event, AliasEvent) else "&"
            raise SettingsError(
                f"{self._place()}: anchors and aliases ({sign}{event.anchor}) are not used here",
                f"write the value out; if it begins with {sign}, put it in single quotes",
            )
        if tag := getattr(event, "tag", None):
            raise SettingsError(f"{self._place()}: the value begins with a YAML tag, {tag!r}", _QUOTE)
        if depth > _DEPTH:
            raise SettingsError(f"{self._place()}: values are nested more than {_DEPTH} deep", "nest them less deeply")

    def _until_end(self, events: Iterator[Event]) -> Iterator[Event]:
        for event in self._counted(events):
            if isinstance(event, CollectionEndEvent):
                return
            yield event

    def _counted(self, events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            self.line = event.start_mark.line + 1
            yield event

    def _place(self) -> str:
        return f"{self._file}:{self.line}"


def _core(text: str) -> bool | int | float | str | None:
    """A plain scalar's value; infinite if JSON has none for it."""
    if text in _NULL:
        return None
    if text in _FLAGS:
        return _FLAGS[text]
    if _ENDLESS.fullmatch(text):
        return math.inf
    if _INTEGER.fullmatch(text):
        return (int(text, 0) if text[:2] in ("0o", "0x") else int(text)) if len(text) < _LONGEST else math.inf
    return float(text) if _FLOAT.fullmatch(text) else text


def _unpaired(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _short(text: str) -> str:
    return text if len(text) < 80 else f"{text[:79]}…"
