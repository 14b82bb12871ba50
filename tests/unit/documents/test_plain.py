"""Text, whatever its encoding, and the text of pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.documents.hypertext import read_html
from services.documents.plain import decoded, read_plain
from services.documents.rich_text import read_rtf
from services.documents.words import Enough, Words

RUSSIAN = "Привет! Это довольно длинный текст в старой кодировке, по которому её можно узнать."
JAPANESE = "これは古い文字コードで書かれた、それを見分けるのに十分な長さの文章です。"


def html(page: str) -> str:
    words = Words(10_000)
    read_html(page.encode(), words)
    return words.text


def rtf(data: bytes) -> str:
    words = Words(10_000)
    read_rtf(data, words)
    return words.text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_utf_8_is_read_as_it_is(text: str) -> None:
    assert decoded(text.encode()) == (text.removeprefix("\ufeff"), None)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_tells_the_encoding(encoding: str) -> None:
    assert decoded(RUSSIAN.encode(encoding)) == (RUSSIAN, None)


@pytest.mark.parametrize(
    ("text", "encoding", "read_as"),
    [
        (RUSSIAN, "cp1251", "cp1251"),
        (RUSSIAN * 5, "koi8-r", "koi8_r"),
        (JAPANESE, "shift_jis", "cp932"),
        ("Eine längere Zeile über Käse, Öl und Süßes, an der man es erkennt.", "cp1252", "cp1250"),
        ("a line of text", "utf-16-le", "utf-16-le"),
        ("a line of text", "utf-16-be", "utf-16-be"),
    ],
    ids=["cp1251", "koi8-r", "shift_jis", "cp1252", "utf-16-le", "utf-16-be"],
)
def test_a_guess_is_said_to_be_one(text: str, encoding: str, read_as: str) -> None:
    read, note = decoded(text.encode(encoding))

    assert read == text
    assert note == f"The encoding is not told; it was read as {read_as}."


def test_lines_end_as_they_do_here_and_nuls_are_gone() -> None:
    words = Words(100)
    read_plain(b"a\r\nb\rc\nd\0e", words)

    assert words.text == "a\nb\nc\nde"


def test_as_much_is_read_as_is_wanted_and_no_more() -> None:
    words = Words(5)
    words.write("abc")
    with pytest.raises(Enough):
        words.write("defgh")

    assert words.text == "abcde"


def test_exactly_as_much_is_not_too_much() -> None:
    words = Words(5)
    words.write("abcde")
    words.write("")

    assert words.text == "abcde"


def test_blank_lines_do_not_pile_up() -> None:
    words = Words(100)
    words.paragraph()
    words.write("a")
    for _ in range(3):
        words.line()
        words.paragraph()
    words.write("b")

    assert words.text == "a\n\nb"


def test_a_page_is_what_its_reader_would_see() -> None:
    page = """<!doctype html><html><head><title>A  page</title><style>p {}</style><script>alert("<p>")</script></head>
        <body><h2>Over<br>view</h2><p>One <b>two</b>
        three &amp; four</p><ul><li>a<li>b</ul><table><tr><td>1<td>2</table>
        <pre>if x:\n    y</pre><img alt="a pier" src=x><template>unseen</template></body></html>"""

    read = html(page)

    assert read == ("A page\n\n## Over\nview\n\nOne two three & four\n\n- a\n- b\n\t1\t2\n\nif x:\n    y\n\n[a pier]")


def test_a_page_may_name_its_encoding_and_may_be_wrong() -> None:
    words = Words(1000)
    read_html(b"<meta charset=koi8-r>" + RUSSIAN.encode("koi8-r"), words)
    assert words.text == RUSSIAN

    for lie in (b"<meta charset=nonsense>", b"<meta charset=ascii>", b"<meta charset=zlib>"):
        words = Words(1000)
        read_html(lie + RUSSIAN.encode(), words)
        assert words.text == RUSSIAN


@pytest.mark.parametrize(
    "page", ["<script>", "<style><p>x", "</pre></pre>x</script>", "<a href='", "&#0;&#xD800;x", "<!--"]
)
def test_broken_pages_are_read_without_a_fault(page: str) -> None:
    assert html(page) in ("", "x", "\ufffd\ufffdx", page)


@given(st.text())
def test_any_text_is_a_page(text: str) -> None:
    assert isinstance(html(text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")), str)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (rb"{\rtf1\ansi{\fonttbl{\f0 Arial;}}\f0 Hello \b bold\b0\par Second}", "Hello bold\nSecond"),
        (rb"{\rtf1\ansi\ansicpg1252 caf\'e9 \u8364? \u8364\'80 done}", "café € € done"),
        (rb"{\rtf1\ansi\ansicpg932 \'82\'b1\'82\'ea}", "これ"),
        (rb"{\rtf1 {\*\generator secret}{\info{\title secret}}{\pict 0102}a\{b\}\\c}", "a{b}\\c"),
        (rb"{\rtf1\uc0\u1055 \u1088 x}", "\u041f\u0440x"),
        (rb"{\rtf1 a\tab b\cell c\row d\emdash e}", "a\tb\tc\nd\u2014e"),
        (rb"{\rtf1 \u-10179?\u999999999?x", "\ufffd\uc9ffx"),
        (rb"{\rtf1 }}}}x", "x"),
        (b"{\\rtf1\\ansicpg99999 a\\", "a"),
    ],
)
def test_rich_text_is_read_as_far_as_its_text_goes(data: bytes, text: str) -> None:
    assert rtf(data) == text


@given(st.binary(max_size=300))
def test_any_bytes_are_read_as_rich_text_without_a_fault(data: bytes) -> None:
    assert isinstance(rtf(b"{\\rtf1 " + data), str)
