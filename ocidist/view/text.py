"""Text from outside, made fit for a terminal: nothing invisible, and a known width in cells."""

from __future__ import annotations

from ocidist.errors import visible

__all__ = ["clip", "middle", "pad", "visible", "width"]


def width(text: str) -> int:
    """Terminal cells that a printable ``text`` takes: wide East Asian ones are 2, combining marks 0."""
    if text.isascii():
        return len(text)
    return sum(map(_cells, text))


def _cells(char: str) -> int:
    if char < "\u0300":
        return 1
    import unicodedata  # an extension module that a listing of ASCII names need not load

    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def clip(text: str, cells: int, mark: str = "…") -> str:
    """``text``, cut at its end to at most ``cells`` cells; ``mark`` (one cell a character) shows a cut."""
    if width(text) <= cells:
        return text
    if cells <= len(mark):
        return mark[: max(cells, 0)]
    return _head(text, cells - len(mark)) + mark


def middle(text: str, cells: int, mark: str = "…") -> str:
    """``text``, cut in its middle to at most ``cells`` cells: both ends of a name tell it apart."""
    if width(text) <= cells:
        return text
    if cells <= len(mark) + 1:
        return clip(text, cells, mark)
    room = cells - len(mark)
    tail = _head(text[::-1], room // 2)[::-1]
    return _head(text, room - width(tail)) + mark + tail


def _head(text: str, cells: int) -> str:
    if text.isascii():
        return text[: max(cells, 0)]
    used = 0
    for at, char in enumerate(text):
        used += _cells(char)
        if used > cells:
            return text[:at]
    return text


def pad(text: str, cells: int, *, right: bool = False) -> str:
    """``text`` filled with spaces to ``cells`` cells, at its left with ``right=True``."""
    space = " " * (cells - width(text))
    return space + text if right else text + space
