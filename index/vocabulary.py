"""Strings by number, for columns that hold the numbers."""

from collections.abc import Iterable, Sequence

CATEGORY_SEPARATOR = " > "


class Vocabulary:
    """Distinct strings by number, 0 standing for none. One thread adds, others look up."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Enter names that are distinct, in their order."""
        self._names = ["", *names]
        self._numbers = {name: number for number, name in enumerate(self._names)}

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


class Categories(Vocabulary):
    """Paths as `Toys > Puzzles`, found by all that are above them too."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Enter paths that are distinct, in their order."""
        super().__init__(names)
        self._within: dict[str, list[int]] = {}
        for number, name in enumerate(self.names, start=1):
            self._enter(number, name)

    def add(self, name: str | None) -> int:
        """The number of a path, which is entered where it is new; 0 for none."""
        before = len(self)
        number = super().add(name)
        if name and number == before:
            self._enter(number, name)
        return number

    def within(self, name: str) -> Sequence[int]:
        """The numbers of a category, in any case, and of all below it; another thread may be adding to them."""
        return self._within.get(name.casefold(), ())

    def _enter(self, number: int, name: str) -> None:
        parts = name.casefold().split(CATEGORY_SEPARATOR)
        for depth in range(1, len(parts) + 1):
            self._within.setdefault(CATEGORY_SEPARATOR.join(parts[:depth]), []).append(number)
