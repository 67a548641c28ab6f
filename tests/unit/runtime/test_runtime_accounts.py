"""Users as an image writes them, looked up in files that the image brings."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ocidist.errors import BundleError
from ocidist.runtime.accounts import MAX_GROUPS, MAX_ID, Account, find

PASSWD = b"""\
root:x:0:0:root:/root:/bin/sh
# a comment:x:5:5::
redis:x:999:998:Redis:/var/lib/redis:/usr/sbin/nologin
redis:x:0:0:a second one:/:/bin/sh
1000:x:0:0:a name of digits:/:/bin/sh
4294967296:x:0:0:another:/:/bin/sh
2147483648:x:0:0:another:/:/bin/sh
-1:x:0:0:another:/:/bin/sh
+:x:0:0:NIS:/:/bin/sh
app:x:1001:1001::/:/bin/sh
wrap:x:4294967296:0::/:/bin/sh
minus:x:-1:0::/:/bin/sh
words:x:root:0::/:/bin/sh
thai:x:\xe0\xb9\x93:0::/:/bin/sh
wide:x:7:4294967296::/:/bin/sh
short:x:9
"""
GROUP = b"""\
root:x:0:
redis:x:998:
staff:x:50:app,redis
audio:x:29:redis
broken:x:zero:redis
998:x:0:
wrap:x:4294967296:
"""


def account(user: str, passwd: bytes = PASSWD, group: bytes = GROUP) -> Account:
    return find(user, {"/etc/passwd": passwd, "/etc/group": group}.__getitem__)


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups"),
    [
        ("", 0, 0, (0,)),
        ("root", 0, 0, (0,)),
        ("redis", 999, 998, (998, 50, 29)),
        ("999", 999, 998, (998, 50, 29)),
        ("redis:staff", 999, 50, (50,)),
        ("redis:7", 999, 7, (7,)),
        ("999:7", 999, 7, (7,)),
        ("999:audio", 999, 29, (29,)),
        ("4711", 4711, 0, (0,)),
        ("4711:0", 4711, 0, (0,)),
        ("2147483647:2147483647", 2**31 - 1, 2**31 - 1, (2**31 - 1,)),
        ("0", 0, 0, (0,)),
        ("app", 1001, 1001, (1001, 50)),
    ],
)
def test_every_form_of_a_user(user: str, uid: int, gid: int, groups: tuple[int, ...]) -> None:
    """Names, numbers and groups, with the supplementary groups where no group is given; the primary is among them."""
    assert account(user) == Account(uid, gid, groups)


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("2147483648", "ids go from 0 to 2147483647"),
        ("4294967296", "ids go from 0"),
        ("4294967295", "ids go from 0"),
        ("18446744073709551616", "ids go from 0"),
        ("0:4294967296", "ids go from 0"),
        ("9" * 5000, "ids go from 0"),
        ("-1", "no sign"),
        ("+0", "no sign"),
        ("+", "no sign"),
        ("redis:-1", "no sign"),
        ("wrap", "'4294967296' for an id"),
        ("minus", "'-1' for an id"),
        ("words", "'root' for an id"),
        ("thai", "for an id"),
        ("wide", "'4294967296' for an id"),
        ("app:wrap", "'4294967296' for an id"),
        ("\u0663", "no such account"),
        ("0x0", "no such account"),
        (" 0", "no such account"),
        ("bob", "no such account"),
        ("short", "no such account"),
        ("# a comment", "no such account"),
        ("redis:none", "no group 'none'"),
        ("redis:", "is written"),
        (":0", "is written"),
        (":", "is written"),
        ("a:b:c", "is written"),
        ("bo\x1b[31mb\n", "no such account"),
    ],
)
def test_d48_what_is_no_user_of_the_image_is_refused(user: str, said: str) -> None:
    """Nothing that can't be an id, and no entry that isn't one, ever comes out as uid 0."""
    with pytest.raises(BundleError) as caught:
        account(user)
    assert said in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_d48_a_number_is_that_number_whatever_accounts_are_called() -> None:
    """An account *named* 1000 with uid 0 is not what 1000 means, nor is a group named 998 the group 998."""
    assert account("1000") == Account(1000, 0, (0,))
    assert account("1000:998") == Account(1000, 998, (998,))


def test_of_two_entries_the_first_counts() -> None:
    """As for getpwnam: the second ``redis`` is root."""
    assert account("redis").uid == 999
    assert find("0", {"/etc/passwd": b"a:x:0:5::\nb:x:0:6::\n", "/etc/group": b""}.__getitem__).gid == 5


def test_numbers_alone_need_no_file() -> None:
    """An image without /etc/passwd, or with a hostile one, still runs as UID:GID."""

    def refuse(path: str) -> bytes:
        raise BundleError(path, "must not be read")

    assert find("10:20", refuse) == Account(10, 20, (20,))
    with pytest.raises(BundleError, match="must not be read"):
        find("10", refuse)


def test_an_image_without_accounts_runs_as_root_or_as_a_number() -> None:
    """Images made from scratch have neither file; a name is refused."""
    assert account("", b"", b"") == Account(0, 0, (0,))
    assert account("7", b"", b"") == Account(7, 0, (0,))
    with pytest.raises(BundleError, match="no such account"):
        account("app", b"", b"")


def test_bytes_that_are_no_text_hide_nothing() -> None:
    """Lines in Latin-1, with NULs, CRs or without an end do not keep the next from being read."""
    passwd = b"\xff\xfe:x:0:0::\n\0\n:x:0:0::\napp:x:7:8::/:/bin/sh\r"
    assert account("app", passwd, b"x:x:9:app\r\n\xff:x:10:app,\xff") == Account(7, 8, (8, 9, 10))


def test_h71_more_groups_than_a_process_can_have() -> None:
    """Refused here, not by setgroups in the container; as many as there can be pass."""
    lines = b"".join(b"g:x:%d:app\n" % number for number in range(MAX_GROUPS))
    assert len(account("app", b"app:x:7:0::\n", lines).groups) == MAX_GROUPS
    with pytest.raises(BundleError, match="more than 65536 groups"):
        account("app", b"app:x:7:99999::\n", lines)


_ID = st.sampled_from(["0", "1", "00", "7", "-1", "+0", "4294967296", "2147483648", "", "x", "\u0660"])
_NAME = st.sampled_from(["a", "b", "0", "1", "7", "4294967296", "-1", "+", "", "root", "\u0660"])
_FIELDS = st.tuples(_NAME, st.just("x"), _ID, _ID, _NAME)
_FILE = st.lists(_FIELDS.map(":".join) | st.text(max_size=9), max_size=6).map(lambda x: "\n".join(x).encode())
_USER = st.one_of(_NAME, _ID, st.tuples(_NAME | _ID, _NAME | _ID).map(":".join), st.text(max_size=5))


@settings(max_examples=1000)
@given(_USER, _FILE | st.binary(max_size=40), _FILE | st.binary(max_size=40))
@example("1", b"1:x:0:0::", b"")
@example("4294967296", b"4294967296:x:0:0::", b"")
def test_d48_uid_0_is_nobody_s_surprise(user: str, passwd: bytes, group: bytes) -> None:
    """Whatever the files say: an error of ours, or ids that can be, and root only for who wrote it, or for a name
    whose first entry says so in so many digits."""
    try:
        found = account(user, passwd, group)
    except BundleError:
        return
    assert all(0 <= number <= MAX_ID for number in (found.uid, found.gid, *found.groups))
    name = user.partition(":")[0]
    if re.fullmatch("[0-9]+", name):
        assert found.uid == int(name)
    elif name and found.uid == 0:
        lines = [line.strip().split(b":") for line in passwd.split(b"\n")]
        first = next(line for line in lines if line[0] == name.encode() and len(line) > 3)
        assert re.fullmatch(b"0+", first[2])
