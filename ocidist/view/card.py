"""The card of an image: names and facts, then tables. From plain values, as text and as HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

from ocidist.view import html as markup
from ocidist.view.schema import Schema
from ocidist.view.table import render
from ocidist.view.text import visible

__all__ = ["Card", "Part"]

SHOWN = 60  # rows of each table
TEXT_WIDTH = 110


@dataclass(frozen=True)
class Part:
    """One table of a card. ``folded`` ones are behind a summary in HTML and left out of the text; ``caption``
    says what the rows are."""

    schema: Schema
    rows: Sequence[Any]
    title: str
    caption: str
    folded: bool = False
    share: str = ""  # the column whose parts are shown


@dataclass(frozen=True)
class Card:
    """``facts`` are names and values, empty ones left out; ``notes`` are sentences that stand out."""

    title: str
    facts: Sequence[tuple[str, object]]
    parts: Sequence[Part]
    notes: Sequence[str] = ()

    def text(self) -> str:
        """The card for a terminal; every string from outside with escapes."""
        facts = [(name, visible(value)) for name, value in self.facts if value not in _EMPTY]
        column = max((len(name) for name, _ in facts), default=0)
        out = [visible(self.title)]
        out += [f"  {name:<{column}}  {value}" for name, value in facts]
        out += [f"  note: {visible(note)}" for note in self.notes]
        for part in self.parts:
            if part.folded or not part.rows:
                continue
            out += ["", render(part.schema, part.rows[:SHOWN], TEXT_WIDTH)]
            if len(part.rows) > SHOWN:
                out.append(f"… {len(part.rows) - SHOWN:,} more of {len(part.rows):,}")
        return "\n".join(out)

    def html(self) -> str:
        """The card for a notebook."""
        body = [markup.definitions(self.facts, self.title, strong=True)]
        body += [markup.note(note) for note in self.notes]
        body += [_part(part) for part in self.parts if part.rows]
        return f'<div class="ocidist" style="color:{markup.TEXT}">{"".join(body)}</div>'


_EMPTY: tuple[object, ...] = (None, "", (), [])


def _part(part: Part) -> str:
    shown = part.rows[:SHOWN]
    count = f"{len(part.rows):,}"
    # Of all rows, also where only the first are shown.
    whole = sum(getattr(row, part.share) for row in part.rows) if part.share else None
    table = markup.table(
        part.schema, shown, total=len(part.rows), caption=part.caption, share=part.share, share_of=whole
    )
    return markup.details(f"{part.title} ({count})", table) if part.folded else table
