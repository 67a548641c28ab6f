"""The snapshotter of a root: chosen once and kept in ``ROOT/snapshots/snapshotter``; native by default."""

from __future__ import annotations

from pathlib import Path

from ocidist.content.disk import failure, make_folders, refuse_links
from ocidist.errors import StoreError, UsageError
from ocidist.files import read_small, replacing
from ocidist.snapshots.folders import FolderSnapshotter
from ocidist.snapshots.native import NativeSnapshotter
from ocidist.snapshots.overlay import OverlaySnapshotter

__all__ = ["SNAPSHOTTERS", "choose"]

SNAPSHOTTERS: dict[str, type[FolderSnapshotter]] = {
    "native": NativeSnapshotter,
    "overlay": OverlaySnapshotter,
}


def choose(folder: Path, wanted: str | None = None) -> NativeSnapshotter | OverlaySnapshotter:
    """Return the snapshotter under ``folder``. ``wanted`` names one, and is kept from then on.

    Raises UsageError for an unknown name, StoreError where the root has trees of another one already.
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
        text = read_small(folder / "snapshotter", 64).decode("utf-8").strip()
    except (
        FileNotFoundError,
        NotADirectoryError,
        PermissionError,
    ):  # the trees of a shared store are private
        return "native"
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else ""
        raise StoreError(str(folder / "snapshotter"), why or str(error)) from error
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
    refuse_links(str(folder))
    try:
        make_folders(str(folder))
        with replacing(folder / "snapshotter", 0o600, durable=True) as file:
            file.write(f"{new}\n".encode())
    except OSError as error:
        raise failure(str(folder), error) from error
