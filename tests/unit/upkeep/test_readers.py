"""C.39 through the program: whatever reads a damaged blob refuses it, and what does not read it is not bothered."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from ocidist.cli.main import main
from ocidist.client import Client
from ocidist.net.replay import load_demo
from ocidist.spec.digest import Digest
from tests.parts.required import require
from tests.unit.upkeep.damages import DAMAGES, DEMO, link, named

PARTS = ("index", "manifest", "config", "layer")


def parts(client: Client) -> dict[str, Digest]:
    image = client.open(f"store:{DEMO}")
    assert image.manifest.config is not None
    return {
        "index": image.descriptor.digest,
        "manifest": image.manifest.descriptor().digest,
        "config": image.manifest.config.digest,
        "layer": image.manifest.layers[0].digest,
    }


def readers(digest: Digest) -> list[tuple[str, ...]]:
    """Commands that read blobs of the image, and hand on what is in them."""
    store = f"store:{DEMO}"
    return [
        ("get", str(digest)),
        ("manifest", store),
        ("manifest", store, "--platform", "linux/amd64"),
        ("inspect", store, "--platform", "linux/amd64", "--format", "json"),
        ("fetch-object", store, str(digest)),
        ("rootfs", "unpack", DEMO, "--platform", "linux/amd64"),
    ]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", DAMAGES, ids=named)
def test_c39_every_command_refuses_damage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    damage: Callable[[Path], None],
    part: str,
) -> None:
    """Each prints what it did before, or nothing and one line on stderr; and one at least refuses."""
    if damage is link:
        require("os:symlink")
    monkeypatch.setenv("HOME", str(tmp_path))
    client = Client(store=tmp_path / "root", transport=load_demo(), platform="linux/amd64")
    client.pull(DEMO)
    store = client.store
    digest = parts(client)[part]
    options = ["--root", str(store.root), "--progress", "none"]

    def run(words: tuple[str, ...]) -> tuple[int, bytes, str]:
        for info in list(store.snapshots.walk()):
            store.snapshots.remove(info.key)
        capfdbinary.readouterr()
        code = main([*options, *words])
        out, err = capfdbinary.readouterr()
        return code, out, err.decode()

    whole = {words: run(words) for words in readers(digest)}
    assert {(code, bool(out), err) for code, out, err in whole.values()} == {(0, True, "")}
    damage(store.content.path(digest))
    refused = []
    for words, before in whole.items():
        code, out, err = run(words)
        if code == 0:
            assert (out, err) == before[1:], words
            continue
        refused.append(words[0])
        assert code == 1, (words, err)
        assert out == b"", words
        assert len(err.splitlines()) == 1, err
        # Of an index whose image is not here that is said, which is as good as the digest of its manifest.
        assert digest in err or f"{DEMO}: none of its images is in the store; pull it with" in err, err
    assert {"get", "fetch-object", "rootfs"} <= set(refused)
    store.close()
