"""Prefixes of digests wherever one is taken, and where what they name lies."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Iterator

import pytest

from ocidist.cli.main import main
from ocidist.errors import InvalidDigest, StoreError
from ocidist.scope import Scope
from ocidist.spec.digest import Digest
from ocidist.spec.prefix import complete, is_prefix
from ocidist.stores.store import Store
from tests.parts.images import TestImage, small_image
from tests.parts.images import image as made
from tests.unit.test_store import pull

REF = "registry.example/plain:1"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("OCIDIST_ROOT", str(tmp_path / "root"))
    with Store.at(tmp_path / "root") as store:
        yield store


def unpacked(store: Store, image: TestImage) -> str:
    """Its ChainID, once it is pulled and unpacked."""
    pull(store, image, REF)
    with Scope() as scope:
        from ocidist.client import Client

        opened = Client(store=store).open(f"store:{REF}", scope=scope)
        assert opened.config is not None
        return str(store.unpack(opened.manifest, opened.config, scope))


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    assert main(list(words)) == code
    return capsys.readouterr()


def test_which_texts_are_prefixes() -> None:
    """Four hexadecimal digits at least, with an algorithm or without; what is whole is none."""
    whole = str(Digest.of(b""))
    for text in ("e3b0", "sha256:e3b0c", "sha512:abcd", whole[:-1], whole[7:]):
        assert is_prefix(text), text
    for text in (
        whole,
        "e3b",
        "sha256:e3",
        "md5:abcdef",
        "E3B0C4",
        "sha256:",
        "redis",
        "sha256:xyzw",
        "abcd\n",
    ):
        assert not is_prefix(text), text


def test_one_function_completes_them() -> None:
    """One candidate is it; none and several are errors, the latter with some of them."""
    digests = [str(Digest.of(b"%d" % at)) for at in range(40)]
    wide = str(Digest.of(b"", "sha512"))
    assert complete(digests[3][:19], digests, "blob") == digests[3]
    for short in (digests[3][:10], digests[3][7:8]):
        with pytest.raises(InvalidDigest, match="write at least 4 hexadecimal digits"):
            complete(short, digests, "blob")
    assert complete(digests[3][7:19], digests, "blob") == digests[3]
    assert complete(digests[3][7:], digests, "blob") == digests[3]
    assert (
        complete(wide[:16], [*digests, wide], "blob")
        == complete(wide[7:16], [*digests, wide], "blob")
        == wide
    )
    assert complete(digests[3], [], "blob") == digests[3]
    with pytest.raises(InvalidDigest, match="no blob of this store begins with it"):
        complete("sha256:0123456789", digests, "blob")
    twins = [f"sha256:abcd{at:060}" for at in range(7)]
    with pytest.raises(InvalidDigest) as caught:
        complete("abcd", twins, "blob")
    assert ", ".join(twins[:5]) + " and 2 more begin with it; write more of it" in str(caught.value)


def test_every_command_takes_prefixes(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """get, path, label, rootfs unpack, prepare, view, diff and rm, inspect of the store, delete."""
    image = small_image()
    chain = unpacked(store, image)
    layer = image.blobs[1].digest
    short, tree = layer[:19], chain[:19]
    store.close()
    assert run(capsys, "path", short)[0].split() == [layer, str(store.content.path(Digest(layer)))]
    assert run(capsys, "path", tree)[0].split()[0] == chain
    assert "a=b\n" in run(capsys, "label", short[7:], "a=b")[0]
    assert run(capsys, "rootfs", "unpack", image.digest[:19])[0].strip() == chain
    assert REF in run(capsys, "inspect", f"store:{REF}")[0]
    assert chain in run(capsys, "inspect", f"store:{image.digest[:19]}")[0]
    assert run(capsys, "rootfs", "prepare", tree, str(tmp_path / "a"))[0].startswith("mount -t ")
    assert run(capsys, "rootfs", "view", tree, str(tmp_path / "b"))[0].startswith("mount -t ")
    run(capsys, "rootfs", "diff", tree)
    for target in ("a", "b"):
        run(capsys, "rootfs", "rm", str(tmp_path / target))
    assert (
        "no unpacked tree of this store begins with it"
        in run(capsys, "rootfs", "prepare", "sha256:0123456", str(tmp_path / "c"), code=1)[1]
    )
    assert run(capsys, "rootfs", "rm", tree)[0].strip() == chain
    assert run(capsys, "delete", short)[0].strip() == layer
    assert not store.content.has(Digest(layer))


# -- one digest, two things --


def uncompressed() -> TestImage:
    """An image of one uncompressed layer: its ChainID is the digest of its blob."""
    return made([b"\0" * 1024], compress=False)


def test_path_of_what_is_a_blob_and_a_tree_tells_both(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --blob or --tree the one that is asked for; stderr says so."""
    image = uncompressed()
    chain = unpacked(store, image)
    assert chain == image.blobs[1].digest
    blob, tree = str(store.content.path(Digest(chain))), str(store.snapshots.path(chain))
    store.close()
    out, err = run(capsys, "path", chain)
    assert out == f"{chain} {blob}\n{chain} {tree}\n"
    assert "--blob or --tree prints one of the two" in err
    assert run(capsys, "path", "--tree", chain) == (f"{chain} {tree}\n", "")
    assert run(capsys, "path", "--blob", chain) == (f"{chain} {blob}\n", "")
    rows = json.loads(run(capsys, "path", chain, "--format", "json")[0])
    assert rows == [{"digest": chain, "path": blob}, {"digest": chain, "path": tree}]
    run(capsys, "delete", chain)
    assert run(capsys, "path", chain) == (f"{chain} {tree}\n", "")
    assert "not a blob of this store" in run(capsys, "path", "--blob", chain, code=1)[1]
    assert os.path.isdir(tree)


def test_a_blob_is_found_where_trees_can_not_be_looked_at(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a root whose snapshots are another user's."""
    image = small_image()
    pull(store, image, REF)
    store.close()

    def refuse(self: Store) -> None:
        raise StoreError("snapshots", "Permission denied")

    monkeypatch.setattr(Store, "snapshots", property(refuse))
    assert run(capsys, "path", image.digest)[0].startswith(f"{image.digest} ")
