"""Presentations of PowerPoint (.pptx)."""

from services.documents.archive import Package
from services.documents.relations import Relations
from services.documents.words import Words


def read_presentation(package: Package, part: str, words: Words) -> None:
    """Write the text of the slides in their order, each with its notes. Raises `Unreadable`, `Enough`."""
    relations = Relations(package, part)
    ids: list[str] = []

    def take(element: str, attributes: dict[str, str]) -> None:
        if element == "sldId":
            ids.append(attributes.get("r:id", ""))

    package.parse(part, start=take)
    slides = [slide for relation_id in ids if (slide := relations.target(relation_id))]
    for number, slide in enumerate(slides, 1):
        words.paragraph()
        words.write(f"## Slide {number}\n")
        _Slide(words).read(package, slide)
        for notes in Relations(package, slide).of_kind("notesSlide"):
            words.paragraph()
            words.write("Notes:\n")
            _Slide(words).read(package, notes)


class _Slide:
    """Follows the elements of one slide."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._in_text = False
        self._in_field = False
        self._cells = 0

    def read(self, package: Package, part: str) -> None:
        package.parse(part, start=self._start, end=self._end, text=self._text)

    def _start(self, element: str, attributes: dict[str, str]) -> None:
        match element:
            case "t":
                self._in_text = not self._in_field
            case "fld":  # the number of the slide, the date
                self._in_field = True
            case "br":
                self._words.write("\n")
            case "tc":
                self._cells += 1
            case _:
                pass

    def _end(self, element: str) -> None:
        match element:
            case "t":
                self._in_text = False
            case "fld":
                self._in_field = False
            case "p" if self._cells:
                self._words.write(" ")
            case "p" | "tr":
                self._words.line()
            case "tc":
                self._cells -= 1
                self._words.write("\t")
            case _:
                pass

    def _text(self, text: str) -> None:
        if self._in_text:
            self._words.write(text)
