"""The commands as a user types them, against a real registry: what they print, in every form, and how they refuse."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.interop.registries import REPOSITORY, TAG, Place, blobs_in, place
from tests.parts.images import (
    Entry,
    gz,
    image,
    noise,
    push_layout,
    sha256,
    small_image,
    small_index,
    write_layout,
)
from tests.parts.processes import Program
from tests.parts.required import program as executable
from tests.parts.required import require

FORMATS = ("table", "json", "jsonl", "csv")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A registry with ``team/app:1`` (an index), tags beside it, and a second repository. Read-only."""
    folder = tmp_path_factory.mktemp("filled")
    with place(folder, small_index()) as found:
        layout = write_layout(folder / "more", {"x": small_image("x")})
        for name, tag in ((REPOSITORY, "2"), (REPOSITORY, "2-rc.1"), ("team/other", "x")):
            push_layout(found.registry.loader.url, layout, name, tag, source_tag="x")
        yield found


@pytest.fixture
def amd64(tmp_path: Path) -> Program:
    """The program, for linux/amd64 whatever machine this is."""
    return Program(tmp_path / "home", tmp_path / "root", options=("--platform", "linux/amd64"))


def rows(text: str, form: str) -> list[dict[str, Any]]:
    """What a listing printed as json, jsonl or csv."""
    if form == "csv":
        return list(csv.DictReader(io.StringIO(text)))
    if form == "jsonl":
        return [json.loads(line) for line in text.splitlines()]
    found: list[dict[str, Any]] = json.loads(text)
    return found


def skopeo(found: Place, *words: str) -> bytes:
    """What skopeo prints about the image."""
    command = [executable("skopeo"), *words, "--tls-verify=false"]
    return subprocess.run(
        [*command, f"docker://{found.remote}" + (f":{TAG}" if words[0] == "inspect" else "")],
        check=True,
        capture_output=True,
    ).stdout


# --- looking ----------------------------------------------------------------------------------------------------


def test_manifest_writes_the_exact_bytes(filled: Place, program: Program) -> None:
    """Of the index as skopeo reads it raw; with --platform of the image that it chooses."""
    assert program.ok("manifest", filled.ref).stdout == skopeo(filled, "inspect", "--raw")
    for child, platform in zip(
        filled.image.children, ("linux/amd64", "linux/arm64", "linux/arm/v7"), strict=True
    ):
        assert program.ok("manifest", "--platform", platform, filled.ref).stdout == child.root.raw
    pinned = f"{filled.remote}@{filled.image.children[1].digest}"
    assert program.ok("manifest", pinned).stdout == filled.image.children[1].root.raw


@pytest.mark.parametrize("form", FORMATS)
def test_resolve_says_what_a_reference_stands_for(filled: Place, program: Program, form: str) -> None:
    """Reference, media type, digest and size, without a download."""
    filled.forget()
    text = program.ok("resolve", filled.ref, "--format", form).text
    media_type = "application/vnd.oci.image.index.v1+json"
    size = len(filled.image.root.raw)
    if form == "table":
        assert text == f"{filled.ref} {media_type} {filled.image.digest} {size}\n"
    else:
        (row,) = rows(text, "jsonl" if form == "json" else form)
        assert {**row, "size": int(row["size"])} == {
            "ref": filled.ref,
            "media_type": media_type,
            "digest": filled.image.digest,
            "size": size,
        }
    assert [request[:2] for request in filled.requests()] == [("GET", f"/v2/{REPOSITORY}/manifests/{TAG}")]


@pytest.mark.parametrize("form", FORMATS)
def test_tags_and_catalog_list_what_the_registry_has(filled: Place, program: Program, form: str) -> None:
    """The tags that skopeo lists; the repositories."""
    tags = json.loads(skopeo(filled, "list-tags"))["Tags"]
    assert sorted(tags) == ["1", "2", "2-rc.1"]
    text = program.ok("tags", filled.remote, "--format", form).text
    assert (text.splitlines() if form == "table" else [row["tag"] for row in rows(text, form)]) == tags
    text = program.ok("catalog", filled.registry.address, "--format", form).text
    found = text.splitlines() if form == "table" else [row["repository"] for row in rows(text, form)]
    assert found == ["team/app", "team/other"]


def test_pages_are_followed_to_the_end(tmp_path: Path, program: Program) -> None:
    """A first page that links to the next: the real registry answers the rest."""
    with place(tmp_path, small_image()) as found:
        layout = write_layout(tmp_path / "more", {"x": small_image("x")})
        for name in ("b", "c/d"):
            push_layout(found.registry.loader.url, layout, name, "x")
        front = found.registry.front
        first = {"Link": '</v2/_catalog?n=1&last=b>; rel="next"'}
        front.answer(r"/v2/_catalog(\?n=\d+)?$", 200, first, b'{"repositories":["b"]}')
        assert program.ok("catalog", found.registry.address).lines == ["b", "c/d", REPOSITORY]
        pages = [r.target for r in front.records if "_catalog" in r.path]
        assert len(pages) == 3, "n=1 makes a page of each"

        head, tail = b'{"name":"b","tags":["a"]}', b'{"name":"b","tags":["b","c"]}'
        front.answer(r"/v2/b/tags/list\?page=2", 200, {}, tail)
        front.answer(r"/v2/b/tags/list(\?n=\d+)?$", 200, {"Link": '<list?page=2>; rel="next"'}, head)
        assert program.ok("tags", f"{found.registry.address}/b").lines == ["a", "b", "c"]


@pytest.mark.parametrize("form", FORMATS)
def test_inspect_shows_manifest_config_and_sizes(filled: Place, amd64: Program, form: str) -> None:
    """In every form what skopeo inspects is there; no layer is downloaded."""
    filled.forget()
    text = amd64.ok("inspect", filled.ref, "--format", form).text
    child = filled.image.children[0]
    layers = [layer["digest"] for layer in child.manifest["layers"]]
    config = json.loads(child.blobs[0].raw)
    if form == "table":
        for expected in (filled.image.digest, "linux/amd64", "/bin/sh", *(layer[:19] for layer in layers)):
            assert expected in text
    elif form == "json":
        document = json.loads(text)
        assert document["manifest"] == child.manifest
        assert document["config"] == config
        assert document["digest"] == filled.image.digest
        assert document["size"] == sum(len(blob.raw) for blob in child.blobs)
        assert document["platforms"] == ["linux/amd64", "linux/arm64/v8", "linux/arm/v7"]
    else:
        found = rows(text, form)
        assert [row["digest"] for row in found] == layers
        assert [row["diff_id"] for row in found] == config["rootfs"]["diff_ids"]
        assert [int(row["size"]) for row in found] == [layer["size"] for layer in child.manifest["layers"]]
    assert filled.registry.front.downloads() == {child.blobs[0].digest: 1}


def test_fetch_object_writes_one_verified_object(filled: Place, program: Program) -> None:
    """Tags, digests, hints and stdin, in both spellings; a wrong digest is refused with nothing on stdout."""
    child = filled.image.children[0]
    layer, hint = child.blobs[1], f"mediatype:{child.root.media_type}"
    assert program.ok("fetch-object", filled.remote, TAG).stdout == filled.image.root.raw
    assert program.ok("fetch-object", filled.ref).stdout == filled.image.root.raw
    assert program.ok("fetch-object", filled.remote, child.digest, hint, "-").stdout == child.root.raw
    assert program.ok("fetch-object", filled.remote, child.digest).stdout == child.root.raw
    assert program.ok("fetch-object", f"{filled.remote}@{layer.digest}").stdout == layer.raw
    lines = f"{layer.digest}\n\n{child.digest} {hint}\n".encode()
    assert program.ok("fetch-object", filled.remote, "-", stdin=lines).stdout == layer.raw + child.root.raw
    missing = program.run("fetch-object", filled.remote, sha256(b"nothing"))
    assert (missing.code, missing.stdout) == (1, b"")
    assert "404" in missing.stderr


# --- the store --------------------------------------------------------------------------------------------------


def test_the_store_lists_what_was_pulled_in_every_form(filled: Place, amd64: Program) -> None:
    """pull, images, list, path: names, types, digests, sizes and platforms."""
    chain = amd64.ok("pull", filled.ref).text.split()[2]
    child = filled.image.children[0]
    everything = {**child.everything(), filled.image.digest: filled.image.root}
    total = sum(len(blob.raw) for blob in everything.values())
    assert amd64.root is not None
    for form in FORMATS:
        listing = amd64.ok("list", "--format", form).text
        images = amd64.ok("images", "--format", form).text
        path = amd64.ok("path", child.digest, "--format", form).text
        pulled = amd64.ok("pull", filled.ref, "--format", form, "--progress", "none")
        assert pulled.stderr == ""
        where = str(amd64.root / "content/blobs" / child.digest.replace(":", "/"))
        if form == "table":
            assert listing.splitlines()[0].split() == ["DIGEST", "SIZE", "AGE"]
            assert {line.split()[0] for line in listing.splitlines()[1:]} == set(everything)
            assert images.splitlines()[0].split() == ["REF", "TYPE", "DIGEST", "SIZE", "PLATFORMS"]
            assert images.splitlines()[1].split()[0] == filled.ref
            assert path == f"{child.digest} {where}\n"
            assert pulled.text == f"{filled.ref} {filled.image.digest} {chain}\n"
            continue
        assert {r["digest"]: int(r["size"]) for r in rows(listing, form)} == {
            digest: len(blob.raw) for digest, blob in everything.items()
        }
        (named,) = rows(images, form)
        assert (named["ref"], named["digest"], int(named["size"])) == (filled.ref, filled.image.digest, total)
        assert named["platforms"] in ("linux/amd64", ["linux/amd64"])
        assert rows(path, form) == [{"digest": child.digest, "path": where}]
        assert rows(pulled.text, "jsonl" if form == "json" else form) == [
            {"ref": filled.ref, "digest": filled.image.digest, "chain_id": chain}
        ]
    assert set(amd64.ok("list", "-q").lines) == set(everything)
    assert amd64.ok("ls", "-q", child.digest[:20]).lines == [child.digest]
    assert amd64.ok("ls", "-q", child.digest[7:20]).lines == [child.digest]
    assert amd64.ok("images", "-q", filled.ref).lines == [filled.ref]
    assert amd64.ok("images", "-q", f"{filled.remote}:2").lines == []
    for blob in everything.values():
        assert amd64.ok("get", blob.digest).stdout == blob.raw


def test_labels_are_set_shown_and_removed(amd64: Program) -> None:
    """KEY=VALUE sets, KEY is true, KEY= removes; they outlive the process."""
    digest = amd64.ok("ingest", "k", stdin=b"content").text.strip()
    assert digest == sha256(b"content")
    assert amd64.ok("label", digest, "a=b", "c", "d=e=f").lines == ["a=b", "c=true", "d=e=f"]
    assert amd64.ok("label", digest, "a=").lines == ["c=true", "d=e=f"]
    for form in FORMATS[1:]:
        assert rows(amd64.ok("label", digest, "--format", form).text, form) == [
            {"label": "c", "value": "true"},
            {"label": "d", "value": "e=f"},
        ]
    assert sha256(b"nothing") in amd64.fails("label", sha256(b"nothing"), "a=b")


def test_delete_and_rmi_go_on_past_what_is_missing_or_bad(filled: Place, amd64: Program) -> None:
    """Missing is no error, bad is exit 1 at the end, and what can be removed is."""
    amd64.ok("pull", filled.ref)
    one, two = (
        amd64.ok("ingest", "1", stdin=b"1").text.strip(),
        amd64.ok("ingest", "2", stdin=b"2").text.strip(),
    )
    done = amd64.run("delete", sha256(b"missing"), one, "sha256:../../x", two)
    assert (done.code, done.lines) == (1, [one, two])
    assert len(done.stderr.splitlines()) == 1
    assert "sha256:../../x" in done.stderr
    assert amd64.ok("rm", one).lines == []
    done = amd64.run("rmi", "not-here:1", "Not A Reference", filled.ref)
    assert (done.code, done.lines) == (1, [filled.ref])
    missing, bad = done.stderr.splitlines()
    assert "not-here:1: no such image here" in missing
    assert "invalid reference 'Not A Reference'" in bad
    assert amd64.ok("images", "-q").text == ""


def test_gc_frees_what_no_name_holds(filled: Place, amd64: Program) -> None:
    """A named image stays; after rmi its content goes, snapshots too; --dry-run removes nothing."""
    amd64.ok("pull", filled.ref)
    held = set(amd64.ok("list", "-q").lines)
    assert amd64.ok("gc").lines[1:] == []
    assert set(amd64.ok("list", "-q").lines) == held
    amd64.ok("rmi", filled.ref)
    for form in FORMATS[1:]:
        found = rows(amd64.ok("gc", "--dry-run", "--format", form).text, form)
        assert {row["digest"] for row in found} == held
    assert set(amd64.ok("list", "-q").lines) == held
    assert {line.split()[0] for line in amd64.ok("gc").lines[1:]} == held
    assert amd64.ok("list", "-q").text == ""
    assert amd64.root is not None
    assert [p for p in (amd64.root / "snapshots").rglob("*") if p.is_file()] == []
    kept = amd64.ok("ingest", "k", stdin=b"held for a day").text.strip()
    amd64.ok("gc")
    assert amd64.ok("list", "-q").lines == [kept]


def test_ingest_checks_and_resumes(amd64: Program) -> None:
    """Wrong expectations are refused and the ingest is kept; the same key goes on; what is here is not an error."""
    data, key = noise(300_000), "some/key@v1"
    digest = sha256(data)
    expected = ["--expected-digest", digest, "--expected-size", str(len(data))]
    assert str(len(data)) in amd64.fails("ingest", *expected, key, stdin=data[:100_000])
    for form in FORMATS:
        text = amd64.ok("active", "--format", form).text
        if form == "table":
            assert text.splitlines()[0].split() == ["REF", "SIZE", "AGE", "TOTAL"]
            assert text.splitlines()[1].startswith(key)
        else:
            assert [(row["ref"], int(row["size"])) for row in rows(text, form)] == [(key, 100_000)]
    assert amd64.ok("list", "-q").text == "", "uncommitted content is invisible"
    assert amd64.ok("ingest", *expected, key, stdin=data).lines == [digest]
    assert amd64.ok("active").lines[1:] == []
    assert amd64.ok("get", digest).stdout == data
    assert amd64.ok("ingest", *expected, key, stdin=data).lines == [digest]
    wrong = sha256(b"other content")
    assert wrong in amd64.fails("ingest", "--expected-digest", wrong, "other", stdin=b"not that")
    assert amd64.ok("list", "-q").lines == [digest]
    empty = amd64.ok("ingest", "empty", stdin=b"").text.strip()
    assert amd64.ok("get", empty).stdout == b""


def test_active_shows_an_ingest_under_way(amd64: Program) -> None:
    """While stdin is still open its bytes so far are listed, for that key alone."""
    process = amd64.start("ingest", "under-way", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(noise(3 << 20))
    process.stdin.flush()
    sizes: list[int] = []
    until = time.monotonic() + 30
    while time.monotonic() < until and not any(sizes):
        found = rows(amd64.ok("active", "--format", "json", "under-way").text, "json")
        sizes = [row["size"] for row in found]
    assert 0 < sizes[0] <= 3 << 20
    assert json.loads(amd64.ok("active", "--format", "json", "other").text) == []
    out, err = process.communicate(b"the end", timeout=30)
    assert process.returncode == 0, err
    assert out.decode().strip() == sha256(noise(3 << 20) + b"the end")


@pytest.mark.parametrize("packed", ["plain", "gzip"])
def test_apply_puts_a_layer_onto_a_directory(tmp_path: Path, amd64: Program, packed: str) -> None:
    """The tree is what GNU tar makes of the same archive; whiteouts remove."""
    from tests.parts.images import tar
    from tests.parts.trees import assert_same, snapshot

    entries = [
        Entry("d/", mode=0o1777),
        Entry("d/file", b"content", mode=0o4755, mtime=1_600_000_000),
        Entry("d/hard", hard="d/file"),
        Entry("d/" + "n" * 120, b"long"),
        Entry("link", link="../outside"),
    ]
    raw = tar(entries)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    amd64.ok("apply", str(ours), stdin=gz(raw) if packed == "gzip" else raw)
    subprocess.run([executable("tar"), "-xp", "-C", str(theirs)], input=raw, check=True)
    assert_same(snapshot(ours), snapshot(theirs), root=False)
    whiteouts = tar([Entry("d/.wh.file"), Entry(".wh.link")])
    amd64.ok("apply", str(ours), stdin=gz(whiteouts) if packed == "gzip" else whiteouts)
    assert not (ours / "d/file").exists()
    assert not (ours / "link").is_symlink()
    assert (ours / "d/hard").read_bytes() == b"content"
    assert (tmp_path / "outside").exists() is False


def test_rootfs_unpack_takes_what_fetch_left(filled: Place, amd64: Program) -> None:
    """fetch and then rootfs unpack come to the chain ID that pull prints; a second time it is there already."""
    amd64.ok("fetch", filled.remote, TAG)
    child = filled.image.children[0]
    chain = amd64.ok("rootfs", "unpack", child.digest).text
    other = Program(amd64.home, amd64.home / "other-root", options=amd64.options)
    assert other.ok("pull", filled.ref).text.split()[2] + "\n" == chain
    assert amd64.ok("rootfs", "unpack", filled.image.digest).text == chain
    assert other.ok("rootfs", "unpack", filled.ref).text == chain
    config = child.blobs[0].digest
    assert amd64.fails("rootfs", "unpack", config)


# --- time and refusals ------------------------------------------------------------------------------------------


def test_a17_timeout_bounds_the_whole_command(tmp_path: Path, amd64: Program) -> None:
    """A blob that never ends, and one that trickles: one line, exit 1, and the next run goes on."""
    made = image([[Entry("noise", noise(400_000))]])
    with place(tmp_path / "p", made) as found:
        gate = found.registry.front.gate(made.blobs[1].digest, 50_000)
        line = amd64.fails("--timeout", "1500ms", "pull", found.ref, timeout=60)
        assert "time" in line
        assert not gate.opened.is_set()
        gate.open()
        found.registry.front.rate = 10_000
        assert amd64.fails("pull", "--timeout", "1.5s", found.ref, timeout=60) == line
        found.registry.front.clear_rules()
        environment = Program(
            amd64.home, amd64.root, options=amd64.options, environment={"CONTAINERD_FETCH_TIMEOUT": "1m30s"}
        )
        environment.ok("pull", found.ref)
        assert amd64.root is not None
        assert set(blobs_in(amd64.root / "content")) == set(made.everything())
        bad = Program(amd64.home, amd64.root, environment={"CONTAINERD_FETCH_TIMEOUT": "soon"})
        assert "CONTAINERD_FETCH_TIMEOUT" in bad.fails("pull", found.ref, code=2)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pull", "unknown.invalid/a:1"], "unknown.invalid"),
        (["resolve", "REFUSED/a:1"], "refused"),
        (["pull", "REMOTE:none"], "no tag 'none'"),
        (["pull", "HOST/no/such:1"], "404"),
        (["pull", "HOST/Upper/Case:1"], "lowercase"),
        (["pull", "REMOTE@sha256:12"], "64"),
        (["fetch", "REMOTE", "sha256:zz"], "sha256:zz"),
        (["fetch-object", "REMOTE", "sha512:00"], "sha512"),
        (["get", "sha256:../../x"], "sha256:../../x"),
        (["get", "md5:d41d8cd98f00b204e9800998ecf8427e"], "md5"),
        (["path", "digest"], "digest"),
        (["--cassette", "/nowhere/at/all", "pull", "REF"], "/nowhere/at/all"),
        (["--platform", "linux/s390x", "pull", "REF"], "linux/arm/v7"),
        (["--platform", "linux/s390x", "inspect", "REF"], "linux/s390x"),
        (["--root", "/proc/nothing", "pull", "REF"], "/proc/nothing"),
        (["--root", "/dev/null", "pull", "REF"], "/dev/null"),
        (["--ca-cert", "/nowhere/ca.pem", "pull", "REF"], "/nowhere/ca.pem"),
        (["rootfs", "unpack", "no/such:1"], "no/such:1"),
        (["apply", "/nowhere/at/all"], "/nowhere/at/all"),
        (["catalog", "unknown.invalid"], "unknown.invalid"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_refusal_is_one_line(filled: Place, program: Program, words: list[str], says: str) -> None:
    """Exit 1, nothing on stdout, no traceback, and one line that starts with the program's name."""
    from tests.parts.registry import free_port

    for key, value in (
        ("REMOTE", filled.remote),
        ("REFUSED", f"127.0.0.1:{free_port()}"),
        ("HOST", filled.registry.address),
        ("REF", filled.ref),
    ):
        words = [word.replace(key, value) for word in words]
    done = program.run("--progress", "none", *words)
    assert (done.code, done.stdout) == (1, b""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("ocidist: ")
    assert says in line


def test_a_closed_pipe_is_no_error(filled: Place, amd64: Program) -> None:
    """``ocidist … | head -c1``: whoever stops reading ends it quietly."""
    require("curl")
    big = amd64.ok("ingest", "big", stdin=noise(4 << 20)).text.strip()
    for words in (["get", big], ["manifest", filled.ref]):
        process = amd64.start(*words)
        assert process.stdout is not None
        with contextlib.closing(process.stdout):
            process.stdout.read(1)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, b"")
