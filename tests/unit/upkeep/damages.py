"""Ways in which a blob is damaged, and what check says of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DEMO = "registry.example/demo/shop:1.0"


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(raw)


def append(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b"\n")


def cut(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])


def link(path: Path) -> None:
    """To a whole copy of itself: a link is refused all the same."""
    away = path.parent.parent.parent / "elsewhere"
    path.rename(away)
    path.symlink_to(away)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def gone(path: Path) -> None:
    path.unlink()


DAMAGES = {
    flip: r"its \d+ bytes hash to sha256:[0-9a-f]{64}",
    append: r"its \d+ bytes hash to sha256:[0-9a-f]{64}; there should be \d+",
    cut: r"its \d+ bytes hash to sha256:[0-9a-f]{64}; there should be \d+",
    link: "what lies in the blob's place is no regular file",
    folder: "what lies in the blob's place is no regular file",
    gone: "missing",
}
REPAIRABLE = [damage for damage in DAMAGES if damage is not folder]


def named(value: Any) -> str:
    return getattr(value, "__name__", str(value))
