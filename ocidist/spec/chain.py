"""ChainIDs: the name of a stack of layers.

Source: OCI image specification, config.md, "Layer ChainID". The ChainID of one layer is its DiffID; of more,
the sha256 of the ChainID below, a space, and the DiffID on top.
"""

from __future__ import annotations

from typing import Iterable

from ocidist.errors import InvalidManifest
from ocidist.spec.digest import Digest

__all__ = ["chain_id", "chain_ids", "child_id"]


def chain_ids(diff_ids: Iterable[Digest]) -> tuple[Digest, ...]:
    """The ChainID of every height of the stack, lowest first; empty for no layers."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(child_id(chain[-1], diff_id) if chain else Digest(diff_id))
    return tuple(chain)


def child_id(parent: Digest, diff_id: Digest) -> Digest:
    """The ChainID of a layer upon the stack ``parent``."""
    return Digest.of(f"{parent} {diff_id}".encode("ascii"))


def chain_id(diff_ids: Iterable[Digest]) -> Digest:
    """The ChainID of the whole stack. Raises InvalidManifest for no layers: the specification has none."""
    chain = chain_ids(diff_ids)
    if not chain:
        raise InvalidManifest("image config", "an image without layers has no chain ID", "rootfs.diff_ids")
    return chain[-1]
