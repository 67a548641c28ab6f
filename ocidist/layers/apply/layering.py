"""How the tree that a layer is applied to stands to the layers beneath it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Protocol

if TYPE_CHECKING:
    from ocidist.layers.apply.contained import Directory, Tree

__all__ = ["InPlace", "Layering"]


class Layering(Protocol):
    """One object serves one layer.

    ``whiteout`` and ``opaque`` come in the order of the archive, anything may follow them. Parents are
    normalised names of the archive; ``own(real)`` says whether this layer itself has put the entry with that real
    path (without links, from the root, with a leading slash). OSErrors come as they are.
    """

    @property
    def in_place(self) -> bool:
        """Whether the tree itself has all that is beneath."""
        ...

    def whiteout(self, tree: Tree, parent: bytes, name: bytes, own: Callable[[bytes], bool]) -> None:
        """``parent/name`` of the layers beneath is gone; what this layer puts there stays."""
        ...

    def opaque(self, tree: Tree, parent: bytes, own: Callable[[bytes], bool]) -> None:
        """All that the layers beneath have in ``parent`` is gone."""
        ...

    def bring_up(self, at: Directory, name: bytes, create: bool) -> bool:
        """Put at ``at/name``, where nothing is and a directory is looked for, the directory (without its content) or
        the symlink that the layers beneath have there; return whether something was put.

        Without ``create`` nothing will be made there, and ``name`` may have further components.
        """
        ...

    def bring_target(self, at: Directory, name: bytes) -> bool:
        """As :meth:`bring_up`, for the target of a hardlink: a file, whole."""
        ...

    def replaced(self, real: bytes) -> None:
        """What this layer's tree had at that real path gave way to an entry, or to a device that is skipped."""
        ...

    def described(self, real: bytes) -> None:
        """An entry says what the directory with that real path looks like (not asked for in an empty root)."""
        ...


class InPlace:
    """The layers beneath are in the tree itself: what they have is found there, and whiteouts remove it."""

    in_place = True

    def whiteout(self, tree: Tree, parent: bytes, name: bytes, own: Callable[[bytes], bool]) -> None:
        at = tree.at(parent, create=False)
        if at is not None:
            tree.hide(at, name, own)

    def opaque(self, tree: Tree, parent: bytes, own: Callable[[bytes], bool]) -> None:
        at = tree.at(parent, create=False)
        if at is not None:
            tree.empty(at, own)

    def bring_up(self, at: Directory, name: bytes, create: bool) -> bool:
        return False

    def bring_target(self, at: Directory, name: bytes) -> bool:
        return False

    def replaced(self, real: bytes) -> None:
        pass

    def described(self, real: bytes) -> None:
        pass
