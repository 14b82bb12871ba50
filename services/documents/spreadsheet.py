"""Workbooks of Excel (.xlsx): each sheet as lines of cells with tabs between them."""

import re
from datetime import datetime, timedelta

from services.documents.archive import Package
from services.documents.relations import Relations
from services.documents.words import Words

_WIDEST_GAP = 100
_BUILT_IN_DATES = {*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)}
"""Numbers of formats that stand for dates and times (ECMA-376, part 1, 18.8.30)."""
_NOT_A_DATE = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]')
_DATE = re.compile(r"[ymdhs]", re.IGNORECASE)
_COLUMN = re.compile(r"[A-Z]{1,3}")


def read_spreadsheet(package: Package, part: str, words: Words) -> None:
    """Write the cells of every sheet, as values. Raises `Unreadable`, `Enough`."""
    relations = Relations(package, part)
    workbook = _Workbook()
    package.parse(part, start=workbook.start)
    strings = _Strings()
    for place in relations.of_kind("sharedStrings"):
        package.parse(place, start=strings.start, end=strings.end, text=strings.text)
    styles = _Styles()
    for place in relations.of_kind("styles"):
        package.parse(place, start=styles.start, end=styles.end)
    for name, relation_id in workbook.sheets:
        sheet = relations.target(relation_id)
        if sheet is None:
            continue
        words.paragraph()
        words.write(f"## {name}\n")
        cells = _Sheet(words, strings.all, styles.dates, workbook.epoch)
        package.parse(sheet, start=cells.start, end=cells.end, text=cells.text)


class _Workbook:
    """The names of the sheets, in their order, and where they are."""

    def __init__(self) -> None:
        self.sheets: list[tuple[str, str]] = []
        self.epoch = datetime(1899, 12, 30)  # noqa: DTZ001 - a cell's time is of no zone

    def start(self, element: str, attributes: dict[str, str]) -> None:
        if element == "sheet":
            self.sheets.append((attributes.get("name", ""), attributes.get("r:id", "")))
        elif element == "workbookPr" and attributes.get("date1904") in ("1", "true"):
            self.epoch = datetime(1904, 1, 1)  # noqa: DTZ001


class _Strings:
    """Texts that cells share."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._pieces: list[str] = []
        self._in_text = False
        self._in_reading_aid = False

    def start(self, element: str, attributes: dict[str, str]) -> None:
        if element == "rPh":
            self._in_reading_aid = True
        self._in_text = element == "t" and not self._in_reading_aid

    def end(self, element: str) -> None:
        self._in_text = False
        if element == "rPh":
            self._in_reading_aid = False
        elif element == "si":
            self.all.append("".join(self._pieces))
            self._pieces = []

    def text(self, text: str) -> None:
        if self._in_text:
            self._pieces.append(text)


class _Styles:
    """Which styles of cells show a number as a date."""

    def __init__(self) -> None:
        self.dates: list[bool] = []
        self._own: dict[int, bool] = {}
        self._in_cell_styles = False

    def start(self, element: str, attributes: dict[str, str]) -> None:
        match element:
            case "numFmt":
                bare = _NOT_A_DATE.sub("", attributes.get("formatCode", ""))
                self._own[_number(attributes.get("numFmtId"))] = bool(_DATE.search(bare))
            case "cellXfs":
                self._in_cell_styles = True
            case "xf" if self._in_cell_styles:
                number = _number(attributes.get("numFmtId"))
                self.dates.append(self._own.get(number, number in _BUILT_IN_DATES))
            case _:
                pass

    def end(self, element: str) -> None:
        if element == "cellXfs":
            self._in_cell_styles = False


class _Sheet:
    """Writes one sheet, row by row."""

    def __init__(self, words: Words, strings: list[str], dates: list[bool], epoch: datetime) -> None:
        self._words = words
        self._strings = strings
        self._dates = dates
        self._epoch = epoch
        self._column = 0
        self._at = 0
        self._kind = "n"
        self._style = 0
        self._value: list[str] = []
        self._in_value = False

    def start(self, element: str, attributes: dict[str, str]) -> None:
        match element:
            case "row":
                self._at = self._column = 0
            case "c":
                self._column = _column(attributes.get("r", "")) or self._column + 1
                self._kind = attributes.get("t", "n")
                self._style = _number(attributes.get("s"))
                self._value = []
            case "v" | "t":
                self._in_value = True
            case _:
                pass

    def end(self, element: str) -> None:
        match element:
            case "v" | "t":
                self._in_value = False
            case "c" if self._value:
                self._words.write("\t" * min(max(self._column - max(self._at, 1), 0), _WIDEST_GAP))
                self._words.write(self._shown("".join(self._value)).replace("\n", " "))
                self._at = self._column
            case "row":
                self._words.line()
            case _:
                pass

    def text(self, text: str) -> None:
        if self._in_value:
            self._value.append(text)

    def _shown(self, value: str) -> str:
        match self._kind:
            case "s":
                index = _number(value, -1)
                return self._strings[index] if 0 <= index < len(self._strings) else ""
            case "b":
                return "TRUE" if value == "1" else "FALSE"
            case "n":
                return self._as_number(value)
            case _:
                return value

    def _as_number(self, value: str) -> str:
        try:
            number = float(value)
            if self._style < len(self._dates) and self._dates[self._style]:
                return _as_time(self._epoch, number)
        except (ValueError, OverflowError):
            return value
        return f"{number:.15g}"


def _as_time(epoch: datetime, days: float) -> str:
    moment = epoch + timedelta(seconds=round(days * 86_400))
    if days < 1:
        return f"{moment:%H:%M:%S}"
    return f"{moment:%Y-%m-%d}" if days == int(days) else f"{moment:%Y-%m-%d %H:%M:%S}"


def _column(reference: str) -> int:
    """1 for A7, 27 for AA1; 0 for what is no reference."""
    letters = _COLUMN.match(reference)
    number = 0
    for letter in letters[0] if letters else "":
        number = number * 26 + ord(letter) - 64
    return number


def _number(text: str | None, otherwise: int = 0) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else otherwise
