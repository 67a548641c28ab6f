"""Who a container runs as: a user as an image or a person writes it, made numbers.

Names are looked up in the image's own /etc/passwd and /etc/group, as ``user``, ``user:group``, ``uid``, ``uid:gid``,
``user:gid`` or ``uid:group``. What is written as a number is that number, also where /etc/passwd has an account of
that *name*, and one that no id can be is refused: neither ever comes out as uid 0 (CVE-2024-40635). PURE: the files
come through a function.

Sources: OCI image specification, config.md, "User"; conversion.md, "Config.User"; passwd(5), group(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, Iterator

from ocidist.errors import BundleError, quoted

__all__ = ["Account", "find"]

PASSWD, GROUP = "/etc/passwd", "/etc/group"
MAX_ID = 2**31 - 1  # as containerd and Docker; past it signed and unsigned readers of an id disagree
MAX_GROUPS = 65_536  # NGROUPS_MAX
_NUMBER = re.compile(r"[0-9]+\Z", re.ASCII)
_SIGNED = re.compile(r"[+-][0-9]*\Z", re.ASCII)


@dataclass(frozen=True)
class Account:
    """``groups`` are the supplementary ones, the primary first: a process that lacks its own group among them can
    shed it, and pass where that group is denied (CVE-2023-25173)."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def find(user: str, read: Callable[[str], bytes]) -> Account:
    """The account that ``user`` (empty: root) stands for; ``read`` gives a file of the image, empty if it has none.

    Without a group the account's own groups apply; with one, that alone, and then a number needs no file at all.
    Raises BundleError for an account that the image does not have, or whose entry is no entry.
    """
    name, colon, group = user.partition(":")
    if ":" in group or (colon and not (name and group)):
        raise _unknown(user, "a user is written NAME, UID, or either with :GROUP or :GID")
    number = _number(name or "0", user)
    if number is not None and colon:
        gid = _group(group, user, read)
        return Account(number, gid, (gid,))
    fields = _entry(read(PASSWD), name, number)
    if fields is None:
        if number is None:
            raise _unknown(
                user, f"the image's {PASSWD} has no such account; a number needs none: --user UID:GID"
            )
        return Account(number, 0, (0,))
    uid = _id_of(fields, 2, user, PASSWD)
    if colon:
        gid = _group(group, user, read)
        return Account(uid, gid, (gid,))
    gid = _id_of(fields, 3, user, PASSWD)
    groups = dict.fromkeys([gid, *_memberships(fields[0], read(GROUP))])
    if len(groups) > MAX_GROUPS:
        raise _unknown(user, f"the image's {GROUP} puts it in more than {MAX_GROUPS} groups")
    return Account(uid, gid, tuple(groups))


def _number(text: str, user: str) -> int | None:
    """The id that ``text`` is; None if it is a name."""
    if _SIGNED.match(text):
        raise _unknown(user, "an id has no sign")
    if not _NUMBER.match(text):
        return None
    if len(text) > 10 or int(text) > MAX_ID:
        raise _unknown(user, f"ids go from 0 to {MAX_ID}")
    return int(text)


def _group(text: str, user: str, read: Callable[[str], bytes]) -> int:
    number = _number(text, user)
    if number is not None:
        return number
    for fields in _lines(read(GROUP), 3):
        if fields[0] == text:
            return _id_of(fields, 2, user, GROUP)
    raise _unknown(user, f"the image's {GROUP} has no group {quoted(text)}")


def _entry(passwd: bytes, name: str, number: int | None) -> list[str] | None:
    """The first line for the name, or where a number was written for that number."""
    for fields in _lines(passwd, 4):
        if fields[0] == name if number is None else _id(fields[2]) == number:
            return fields
    return None


def _memberships(name: str, group: bytes) -> Iterator[int]:
    for fields in _lines(group, 4):
        gid = _id(fields[2])
        if gid is not None and name in fields[3].split(","):
            yield gid


def _lines(data: bytes, least: int) -> Iterator[list[str]]:
    for line in data.split(b"\n"):
        fields = line.strip().decode("utf-8", "surrogateescape").split(":")
        if len(fields) >= least and fields[0] and fields[0][0] not in "#+-":  # NIS is not asked
            yield fields


def _id(text: str) -> int | None:
    return int(text) if _NUMBER.match(text) and len(text) <= 10 and int(text) <= MAX_ID else None


def _id_of(fields: list[str], at: int, user: str, where: str) -> int:
    found = _id(fields[at])
    if found is None:
        raise _unknown(user, f"its entry in the image's {where} has {quoted(fields[at])} for an id")
    return found


def _unknown(user: str, why: str) -> BundleError:
    return BundleError(f"user {quoted(user)}", why)
