"""Which snapshotter a root has: said once, then kept in ``ROOT/snapshots/snapshotter``; native if nothing was said."""

from __future__ import annotations

import os
from pathlib import Path

from ocidist.content.disk import failure
from ocidist.errors import StoreError, UsageError
from ocidist.snapshots.folders import FolderSnapshotter
from ocidist.snapshots.native import NativeSnapshotter
from ocidist.snapshots.overlay import OverlaySnapshotter

__all__ = ["SNAPSHOTTERS", "choose"]

SNAPSHOTTERS: dict[str, type[FolderSnapshotter]] = {
    "native": NativeSnapshotter,
    "overlay": OverlaySnapshotter,
}


def choose(folder: Path, wanted: str | None = None) -> NativeSnapshotter | OverlaySnapshotter:
    """The snapshotter under ``folder``. ``wanted`` names one, and is kept from then on.

    Raises UsageError for a name that is none, StoreError where the root has trees of another one already.
    """
    if wanted is not None and wanted not in SNAPSHOTTERS:
        raise UsageError(f"--snapshotter {wanted}: no such snapshotter; they are {', '.join(SNAPSHOTTERS)}")
    kept = _kept(folder)
    if wanted is not None and wanted != kept:
        _keep(folder, kept, wanted)
        kept = wanted
    return OverlaySnapshotter(folder) if kept == "overlay" else NativeSnapshotter(folder)


def _kept(folder: Path) -> str:
    try:
        text = (folder / "snapshotter").read_text("utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return "native"
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(str(folder / "snapshotter"), str(error)) from error
    if text not in SNAPSHOTTERS:
        names = " or ".join(SNAPSHOTTERS)
        raise StoreError(str(folder / "snapshotter"), f"it says {text!r}, not {names}")
    return text


def _keep(folder: Path, old: str, new: str) -> None:
    if next(SNAPSHOTTERS[old](folder).walk(), None) is not None:
        raise StoreError(
            str(folder),
            f"its trees are {old}'s; remove them first (rmi, gc, rootfs rm), or use another --root",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f"snapshotter.{os.getpid()}"
        fresh.write_text(f"{new}\n", "utf-8")
        os.replace(fresh, folder / "snapshotter")
    except OSError as error:
        raise failure(str(folder), error) from error
