"""A world in which there are no other hosts: names that a client knows, all of them on loopback."""

from __future__ import annotations

from typing import Iterator, Mapping


class OnlyThese(Mapping[str, tuple[str, int]]):
    """``connect_to`` with the ports of ``places`` (``host:port`` -> port); any other name is an error, not a look-up."""

    def __init__(self, places: Mapping[str, int]) -> None:
        self._places = {name: ("127.0.0.1", port) for name, port in places.items()}

    def __getitem__(self, name: str) -> tuple[str, int]:
        if name not in self._places:
            raise OSError(f"{name} is in no test's world")
        return self._places[name]

    def get(self, name: str, default: object = None) -> tuple[str, int]:  # type: ignore[override]
        """As ``[]``: what is not known here is nowhere."""
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
