"""Documents that show themselves: a manifest, an index and a config as JSON, to fold in a notebook.

Each is the plain value of ``spec`` with a repr; equal to it, since both stand for the same bytes.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from ocidist.spec.config import ImageConfig
from ocidist.spec.manifest import Index, Manifest

__all__ = ["ConfigView", "IndexView", "ManifestView", "shown"]

LINES = 400  # of a repr

T = TypeVar("T", Manifest, Index, ImageConfig)


class _Shown:
    """What the three have in common: their raw bytes, and how those are shown."""

    title = ""
    raw: bytes

    def __eq__(self, other: object) -> bool:
        return (
            self.raw == other.raw
            if isinstance(other, (_Shown, Manifest, Index, ImageConfig))
            else NotImplemented
        )

    def __hash__(self) -> int:
        return hash(self.raw)

    def _document(self) -> Any:
        import json

        return json.loads(self.raw)

    def __repr__(self) -> str:
        import json

        from ocidist.view.text import visible

        lines = json.dumps(self._document(), indent=1, ensure_ascii=False).split("\n")
        more = [f"… {len(lines) - LINES:,} more lines"] if len(lines) > LINES else []
        return "\n".join([*map(visible, lines[:LINES]), *more])

    def _repr_html_(self) -> str:
        from ocidist.view import html as markup

        return (
            f'<div class="ocidist" style="color:{markup.TEXT};font-family:{markup.MONO}">'
            f"{markup.json_tree(self._document(), self.title)}</div>"
        )


class ManifestView(_Shown, Manifest):
    """A :class:`~ocidist.spec.manifest.Manifest` that shows as JSON."""

    title = "manifest"


class IndexView(_Shown, Index):
    """A :class:`~ocidist.spec.manifest.Index` that shows as JSON."""

    title = "index"


class ConfigView(_Shown, ImageConfig):
    """An :class:`~ocidist.spec.config.ImageConfig` that shows as JSON."""

    title = "config"


_VIEWS: dict[type, type] = {Manifest: ManifestView, Index: IndexView, ImageConfig: ConfigView}


def shown(value: T) -> T:
    """The same document, to look at."""
    view = _VIEWS.get(type(value))
    if view is None:  # shown already
        return value
    made: T = view(**{each.name: getattr(value, each.name) for each in fields(value)})
    return made
