"""The text of office documents and books."""

from io import BytesIO

import pytest

from services.documents.package import open_package
from services.documents.words import Enough, Unreadable, Words
from tests.papers import docx, docx_with_notes, epub, odf, paragraph, pptx, xlsx, zipped

MIB = 1_048_576


def read(data: bytes, characters: int = 10_000) -> tuple[str, str]:
    """The media type's last word, and the text."""
    found = open_package(BytesIO(data), budget=10 * MIB)
    assert found is not None
    media_type, write = found
    words = Words(characters)
    write(words)
    return media_type.rpartition(".")[2], words.text


def test_a_document_of_word_has_headings_tables_and_notes() -> None:
    kind, text = read(docx_with_notes())

    assert kind == "document"
    assert [line.rstrip() for line in text.split("\n")] == [
        "## Plans",
        "One\ttwo",
        "three",
        "a \tb",
        "",
        "Seen from afar.",
    ]


def test_what_word_says_twice_is_read_once() -> None:
    choice = (
        "<mc:AlternateContent xmlns:mc='x'><mc:Choice>{}</mc:Choice><mc:Fallback>{}</mc:Fallback></mc:AlternateContent>"
    )

    assert read(docx(choice.format(paragraph("once"), paragraph("twice"))))[1] == "once"


def test_a_workbook_is_lines_of_values() -> None:
    rows = (
        '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="C1" t="inlineStr"><is><t>in\nline</t></is></c></row>'
        '<row r="2"><c r="A2"><v>0.30000000000000004</v></c><c r="B2" t="b"><v>1</v></c>'
        '<c r="C2" s="1"><v>45351.5</v></c><c r="D2" s="2"><v>45351</v></c><c r="E2" t="e"><v>#REF!</v></c></row>'
        '<row r="9"><c r="B9" t="s"><v>1</v></c><c t="s"><v>77</v></c><c s="2"><v>1e99</v></c></row>'
    )
    strings = "<si><t>Na</t><rPh><t>no</t></rPh><r><t>me</t></r></si><si><t>last</t></si>"
    formats = (
        '<numFmt numFmtId="170" formatCode="&quot;day&quot; yyyy-mm-dd hh:mm"/>'
        '<numFmt numFmtId="171" formatCode="[Red]0"/>'
    )
    styles = '<xf numFmtId="0"/><xf numFmtId="170"/><xf numFmtId="14"/><xf numFmtId="171"/>'

    kind, text = read(xlsx(rows, strings, formats, styles))

    assert kind == "sheet"
    assert text == ("## Data\nName\t\tin line\n0.3\tTRUE\t2024-02-29 12:00:00\t2024-02-29\t#REF!\n\tlast\t\t1e99")


def test_slides_come_in_their_order_with_their_notes() -> None:
    kind, text = read(pptx("First\nslide", "Second", notes="Smile."))

    assert kind == "presentation"
    assert text == "## Slide 1\nFirst\nslide\n\nNotes:\nSmile.\n\n## Slide 2\nSecond"


def test_documents_of_libreoffice_are_read() -> None:
    body = (
        "<text:tracked-changes><text:p>gone</text:p></text:tracked-changes>"
        '<text:h text:outline-level="2">Plans</text:h>'
        "<text:p>One<text:tab/>two<text:line-break/>three<text:s text:c='2'/>four</text:p>"
        "<text:p>Five<office:annotation><text:p>aside</text:p></office:annotation></text:p>"
    )

    assert read(odf("text", body)) == ("text", "## Plans\nOne\ttwo\nthree  four\nFive")


def test_sheets_of_libreoffice_keep_their_columns() -> None:
    def cell(text: str) -> str:
        return f"<table:table-cell><text:p>{text}</text:p></table:table-cell>"

    gap = "<table:table-cell table:number-columns-repeated='2'/>"
    rows = [f"{cell('a')}{gap}{cell('d')}", f"{cell('1')}{cell('2')}"]
    table = "".join(f"<table:table-row>{row}</table:table-row>" for row in rows)

    kind, text = read(odf("spreadsheet", f"<table:table table:name='Data'>{table}</table:table>"))

    assert kind == "spreadsheet"
    assert [line.replace(" ", "") for line in text.split("\n")] == ["##Data", "a\t\t\td", "1\t2"]


def test_the_chapters_of_a_book_come_in_their_order() -> None:
    assert read(epub("It was night.", "It was day.")) == ("application/epub+zip", "It was night.\n\nIt was day.")


def test_an_archive_that_is_no_document_has_no_text() -> None:
    assert open_package(BytesIO(zipped({"a.txt": "x"})), budget=MIB) is None
    assert open_package(BytesIO(zipped({"mimetype": "application/x-own", "a": "x"})), budget=MIB) is None


def test_all_that_is_unpacked_counts_against_one_budget() -> None:
    with pytest.raises(Unreadable, match="larger"):
        read(docx(paragraph("a") * 400_000), characters=10_000_000)


def test_reading_stops_where_enough_is_read() -> None:
    with pytest.raises(Enough):
        read(docx(paragraph("word ") * 1000), characters=100)


@pytest.mark.parametrize("target", ["../../etc/passwd", "file:///etc/passwd", "http://example.org/x", "word/no.xml"])
def test_a_relation_that_leads_elsewhere_leads_nowhere(target: str) -> None:
    entries = {"_rels/.rels": f'<R><Relationship Id="1" Type="x/officeDocument" Target="{target}"/></R>'}

    assert open_package(BytesIO(zipped(entries)), budget=MIB) is None
