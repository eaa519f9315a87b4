"""Looking up names: for how long a result is known, and whose look-up is next.

Any client can have any name looked up, and one that does not resolve takes many seconds. So results are kept for a
moment, and who asks for many names waits for those who ask for few. All of it is told the time, in seconds.
"""

from collections import Counter
from collections.abc import Hashable, Sized

GOOD_FOR = 5.0
"""Seconds for which a result is known."""
BAD_FOR = 2.0
"""The same of a failure, which may soon be mended: a container that is just starting has no name yet."""
STALE_FOR = 60.0
"""Seconds for which a result is better than to wait for a look-up that cannot begin yet (as RFC 8767 has it)."""

MOST_NAMES = 512
"""Results that are known at a time, and as many failures."""
MOST_ADDRESSES = 32
"""In a result that is kept. Whoever owns a name can give it thousands."""

PLACES = 128
"""Look-ups that may be under way at a time."""
LONGEST_LINE = 256
"""Names of one asker that may wait for their turn."""


class Memory[Answer: Sized]:
    """What look-ups have found of late. Failures never push out results: anyone can make up names."""

    def __init__(self) -> None:
        self._good: dict[Hashable, tuple[Answer, float]] = {}
        self._bad: dict[Hashable, tuple[Exception, float]] = {}

    def keep(self, name: Hashable, answer: Answer, now: float) -> None:
        """A look-up has succeeded."""
        self._bad.pop(name, None)
        self._good.pop(name, None)
        if len(answer) <= MOST_ADDRESSES:
            _put(self._good, name, (answer, now))

    def keep_failure(self, name: Hashable, error: Exception, now: float) -> None:
        """A look-up has failed: what was known before is no longer so."""
        self._good.pop(name, None)
        _put(self._bad, name, (error, now))

    def answer(self, name: Hashable, now: float, age: float = GOOD_FOR) -> Answer | None:
        """The result, if it is not older than this."""
        return _get(self._good, name, now - age)

    def failure(self, name: Hashable, now: float) -> Exception | None:
        """The error of a look-up that has just failed."""
        return _get(self._bad, name, now - BAD_FOR)


def _put[Kept](known: dict[Hashable, tuple[Kept, float]], name: Hashable, entry: tuple[Kept, float]) -> None:
    known.pop(name, None)  # the oldest come first
    if len(known) >= MOST_NAMES:
        del known[next(iter(known))]
    known[name] = entry


def _get[Kept](known: dict[Hashable, tuple[Kept, float]], name: Hashable, since: float) -> Kept | None:
    kept = known.get(name)
    return kept[0] if kept and kept[1] > since else None


class Turns[Name: Hashable]:
    """Who may look up a name, where only so many may at a time.

    An asker gets a place while it has fewer than are free: alone it gets half of all, and there is one left for the
    next. Names that several ask for stand in the line of each.
    """

    def __init__(self, places: int = PLACES) -> None:
        self._free = places
        self._taken: Counter[Hashable] = Counter()
        self._lines: dict[Hashable, dict[Name, None]] = {}
        """Names by who waits for them, both in the order of their turns."""

    def wait(self, asker: Hashable, name: Name) -> bool:
        """Stand in line; false if the asker's is too long."""
        line = self._lines.get(asker, {})
        if name not in line and len(line) >= LONGEST_LINE:
            return False
        line[name] = None
        self._lines[asker] = line
        return True

    def leave(self, name: Name) -> None:
        """Nobody waits for this name any more."""
        for asker, line in list(self._lines.items()):
            line.pop(name, None)
            if not line:
                del self._lines[asker]

    def take(self) -> tuple[Hashable, Name] | None:
        """Have whoever is next take a place: the asker, and the name; None where nobody may now."""
        for asker, line in self._lines.items():
            if self._taken[asker] < self._free:
                name = next(iter(line))
                self._lines[asker] = self._lines.pop(asker)  # behind the others
                self.leave(name)
                self._taken[asker] += 1
                self._free -= 1
                return asker, name
        return None

    def give_back(self, asker: Hashable) -> None:
        """The place that this asker took is free again."""
        self._free += 1
        self._taken[asker] -= 1
        if not self._taken[asker]:
            del self._taken[asker]
