"""Text from outside, as a terminal shows it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ocidist.spec.digest import Digest
from ocidist.view.text import clip, middle, pad, visible, width

ANY = st.text(st.characters())  # surrogates, controls and all


def test_g67_ansi_bidi_nul_and_surrogates_are_visible_escapes() -> None:
    """Nothing that steers a terminal or hides in it stays as it was."""
    assert visible("a\x1b[31mb\x00\u202ec\udc80\x9b\u200b\ufeff\n\t") == (
        "a\\x1b[31mb\\x00\\u202ec\\udc80\\x9b\\u200b\\ufeff\\n\\t"
    )
    assert visible("\U000e0041") == "\\U000e0041"


def test_text_that_prints_stays() -> None:
    """Letters of any script, symbols and backslashes are left alone."""
    for text in ("", "plain", "naïve", "漢字", "🐳", "C:\\x1b"):
        assert visible(text) == text


def test_g67_an_object_whose_str_raises_is_named_by_its_type() -> None:
    """A repr never raises, whatever it is handed."""

    class Bad:
        def __str__(self) -> str:
            raise RuntimeError

    assert visible(Bad()) == "<Bad>"
    assert type(visible(Digest.of(b""))) is str


@given(ANY)
def test_g67_visible_text_always_prints_and_encodes(text: str) -> None:
    """Whatever came in, what goes out is printable UTF-8, and a second pass changes nothing."""
    shown = visible(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert visible(shown) == shown


def test_wide_and_combining_characters_have_their_cells() -> None:
    """East Asian wide characters take two cells, combining marks none."""
    assert width("abc") == 3
    assert width("漢字") == 4
    assert width("e\u0301") == 1
    assert width("…█é") == 3


@given(ANY.map(visible), st.integers(0, 30))
def test_cut_and_padded_text_takes_its_cells(text: str, cells: int) -> None:
    """Neither cut is wider than asked for, and padding fills exactly."""
    for cut in (clip(text, cells), middle(text, cells)):
        assert width(cut) <= cells
        assert width(pad(cut, cells)) == cells
        if width(text) <= cells:
            assert cut == text


def test_a_cut_shows_and_keeps_what_it_can() -> None:
    """A cut at the end keeps the head; one in the middle keeps both ends."""
    assert clip("abcdef", 4) == "abc…"
    assert middle("abcdefgh", 5) == "ab…gh"
    assert clip("漢字漢字", 4) == "漢…"
    assert pad("7", 3, right=True) == "  7"
