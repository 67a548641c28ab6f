"""What bytes that are not a tar archive look like, for errors: most often an error page in a blob's place.

Pure. Sources: the formats' own magic numbers; WHATWG MIME Sniffing for HTML.
"""

from __future__ import annotations

__all__ = ["recognise"]

_MAGICS = (
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "gzip data inside the compression"),
    (b"\x28\xb5\x2f\xfd", "zstd data inside the compression"),
    (b"\xfd7zXZ\0", "xz data inside the compression"),
    (b"BZh", "bzip2 data inside the compression"),
    (b"\x04\x22\x4d\x18", "lz4 data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"!<arch>\n", "an ar archive, as .deb packages are"),
    (b"\xed\xab\xee\xdb", "an RPM package"),
    (b"070701", "a cpio archive"),
    (b"070707", "a cpio archive"),
    (b"hsqs", "a squashfs image"),
    (b"\x7fELF", "an ELF program"),
    (b"%PDF-", "a PDF document"),
    (b"#!", "a script"),
)
_TEXTS = ((b"<!doctype html", "an HTML page"), (b"<html", "an HTML page"), (b"<", "XML or HTML"))
_TEXT = bytes({*range(0x20, 0x7F), *b"\t\n\r\f"})


def recognise(head: bytes) -> str:
    """What the first bytes of a file look like, as ``an HTML page``; empty if nothing is known of them."""
    for magic, what in _MAGICS:
        if head.startswith(magic):
            return what
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b"\t\n\r\f ").lower()
    for magic, what in _TEXTS:
        if text.startswith(magic):
            return what
    if head.translate(None, _TEXT):
        return ""
    if text[:1] in (b"{", b"["):
        return "JSON"
    return "text" if text else ""
