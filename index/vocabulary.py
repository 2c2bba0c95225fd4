"""Strings by number, for columns that hold the numbers."""

from collections.abc import Callable, Hashable, Iterable, Sequence

MOST_CACHED = 256


class Vocabulary:
    """Distinct strings by number, 0 standing for none. One thread adds, others look up."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Enter names that are distinct, in their order."""
        self._names = ["", *names]
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._cached: dict[Hashable, tuple[int, ...]] = {}

    def __len__(self) -> int:
        """How many numbers there are; every number in use is below it."""
        return len(self._names)

    @property
    def names(self) -> list[str]:
        """By number, without that for none."""
        return self._names[1:]

    def add(self, name: str | None) -> int:
        """The number of a name, which is entered where it is new; 0 for none."""
        if not name:
            return 0
        number = self._numbers.get(name)
        if number is None:
            number = len(self._names)
            self._names.append(name)  # before the number can be found
            self._numbers[name] = number
        return number

    def find(self, name: str) -> int | None:
        """The number of a name, None where it was never entered."""
        return self._numbers.get(name)

    def name(self, number: int) -> str:
        """The name of a number."""
        return self._names[number]

    def cached(self, key: Hashable, find: Callable[[Sequence[str]], tuple[int, ...]]) -> tuple[int, ...]:
        """What `find` says of all names, kept until there are more of them: what is asked for repeats."""
        whole_key = (len(self._names), key)
        found = self._cached.get(whole_key)
        if found is None:
            if len(self._cached) >= MOST_CACHED:
                self._cached.clear()
            self._cached[whole_key] = found = find(self.names)
        return found
