"""Repair: what ``check`` found damaged or missing is fetched again from where it came, and trees are unpacked again.

A blob's labels tell in which repositories it is known, and so do the names of the images that need it. What is
fetched is verified first and takes the damaged one's place by a rename, so a blob that can't be had stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Iterable, Iterator

from ocidist.errors import OcidistError, UsageError
from ocidist.progress import Failed, Queued
from ocidist.remotes import Locator
from ocidist.rows import Rows, Schema
from ocidist.spec.chain import chain_id
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.reference import Reference
from ocidist.stores.upkeep.check import DamageRow, references
from ocidist.stores.upkeep.trees import remake, unpackable

if TYPE_CHECKING:
    from ocidist.client import Client
    from ocidist.remotes.protocols import Source
    from ocidist.scope import Scope
    from ocidist.stores.store import Store

__all__ = ["RepairRow", "repair"]

ROUNDS = 16  # a mended index tells of manifests, those of layers: as deep as indices may nest
_OTHERS = {
    "image": "pull {name} again, or rmi it",
    "stray": "move it away: what it is nobody here knows",
    "database": "move the file away: blobs stay, and names return when images are pulled again",
}


@dataclass(frozen=True)
class RepairRow:
    """What came of one :class:`~ocidist.stores.upkeep.check.DamageRow`. ``outcome`` is where it was fetched from, or why
    it could not be, and what can be done."""

    kind: str
    name: str
    problem: str
    repaired: bool
    outcome: str


REPAIRED = Schema.of(RepairRow, "repaired")


def repair(client: Client, damage: Iterable[DamageRow], scope: Scope) -> Rows[RepairRow]:
    """Fetch the blobs of ``damage`` into ``client.store``, and what that shows to be missing as well; then unpack the
    trees that are missing or damaged.

    A row for each, repaired or not. Raises the scope's end, or StoreError where the store can't be written.
    """
    store = client.store
    store.require_writable()
    blobs: dict[str, RepairRow] = {}
    todo = list(damage)
    others = {(row.kind, row.name): row for row in todo if row.kind not in ("blob", "tree")}
    trees = _by_tree(todo)
    for _ in range(ROUNDS):
        fetched = [_done(row, *_fetched(client, row, scope)) for row in todo if row.kind == "blob"]
        blobs.update({row.name: row for row in fetched})
        if not any(row.repaired for row in fetched):
            break
        bad = {Digest(row.name): row.problem for row in blobs.values() if not row.repaired}
        still = list(references(store, bad, scope))
        todo = [row for row in still if row.kind == "blob" and row.name not in blobs]
        strays = {key: row for key, row in others.items() if row.kind == "stray"}
        others = strays | {(row.kind, row.name): row for row in still if row.kind != "blob"}
    rows = list(blobs.values())
    for row in others.values():
        if row.kind == "snapshot":
            rows.append(_done(row, *_unpacked(client, row, scope)))
        else:
            rows.append(_done(row, _OTHERS[row.kind].format(name=row.name), False))
    rows += [_done(row, *_remade(store, row, scope)) for row in trees]
    return Rows(REPAIRED, rows)


def _by_tree(damage: Iterable[DamageRow]) -> list[DamageRow]:
    """One row for each damaged tree."""
    found: dict[str, list[DamageRow]] = {}
    for row in damage:
        if row.kind == "tree":
            found.setdefault(row.name, []).append(row)
    return [
        replace(rows[0], problem=f"{rows[0].problem}{'; and others' if rows[1:] else ''}")
        for rows in found.values()
    ]


def _done(row: DamageRow, outcome: str, repaired: bool) -> RepairRow:
    return RepairRow(row.kind, row.name, row.problem, repaired, outcome)


def _unpacked(client: Client, row: DamageRow, scope: Scope) -> tuple[str, bool]:
    """The tree of a ChainID again, from the layers of an image that has it. What is left of the old one goes."""
    store, said = client.store, "no image of the store has this tree: pull one that does"
    for record, manifest, config in unpackable(store, scope):
        chains = {str(chain_id(config.diff_ids[:count])) for count in range(1, len(config.diff_ids) + 1)}
        if row.name not in chains:
            continue
        try:
            if any(info.key == row.name for info in store.snapshots.walk()):
                store.snapshots.remove(row.name)
            store.unpack(manifest, config, scope)
            return f"unpacked again, from {record}", True
        except OcidistError as error:
            scope.check()
            said = str(error)
    return said, False


def _remade(store: Store, row: DamageRow, scope: Scope) -> tuple[str, bool]:
    """A damaged tree unpacked again, in the place of the old one."""
    try:
        return (
            f"unpacked again, from {remake(store.within(scope), row.name, scope)}",
            True,
        )
    except OcidistError as error:
        scope.check()
        return str(error), False


def _fetched(client: Client, row: DamageRow, scope: Scope) -> tuple[str, bool]:
    """Where the blob was fetched from, and True; else why it was not, and False."""
    digest, said = Digest(row.name), []
    for repository in _repositories(row):
        try:
            source = client.remote(f"{repository}@{digest}").readable()
            target = _located(source, row.target, digest, scope)
            scope.emit(Queued(target))
            client.store.replace(target, source, scope)
            return f"fetched from {repository}", True
        except OcidistError as error:
            scope.check()
            said.append(str(error))
    why = "; ".join(said) or "where it came from is not known: pull an image that has it"
    scope.emit(Failed(digest, why))
    return why, False


def _repositories(row: DamageRow) -> Iterator[str]:
    """Where it may be had, without tags, each once: what its labels say, then what images' names say."""
    seen = set()
    for text in (*row.sources, *row.images):
        try:
            where = Locator.parse(text)
            name = Reference.parse(where.body).name if where.kind == "registry" else ""
        except OcidistError:  # a name or label that is no reference
            continue
        if name and name not in seen:
            seen.add(name)
            yield name


def _located(source: Source, known: Descriptor | None, digest: Digest, scope: Scope) -> Descriptor:
    """Return the descriptor of a digest: from the manifest that names it, else from what the registry says."""
    if known is not None and known.size >= 0:
        return known
    target, raw = source.resolve(str(digest), scope, need_bytes=True, hint="")
    if target.size < 0:
        raise UsageError("the registry does not tell its size: pull an image that has it")
    return target if raw is None else replace(target, data=raw)
