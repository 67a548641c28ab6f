"""Roots that belong to another program.

containerd keeps names and leases of its content in a database of its own: what is put beside its blobs it does not
list, and its collector deletes it. The layout is the same, so such a root is read, and never written.
"""

from __future__ import annotations

import os

__all__ = ["REFUSAL", "containerd_content"]

PLUGIN = "io.containerd.content.v1.content"
"""The directory of containerd's content plugin below its root (containerd, ``docs/ops.md``)."""

REFUSAL = (
    "this root is owned by containerd, whose collector deletes what it does not know, so it is only read; "
    "give another --root to write to"
)


def containerd_content(root: str) -> str | None:
    """The content directory, where ``root`` is one of containerd's or has one; else None."""
    if os.path.basename(os.path.realpath(root)) == PLUGIN:
        return root
    inner = os.path.join(root, PLUGIN)
    return inner if os.path.isdir(inner) else None
