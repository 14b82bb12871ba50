"""HTML as text: what a reader would see, with marks for headings and lists."""

import re
from html.parser import HTMLParser

from services.documents.plain import decoded
from services.documents.words import Words

_CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{2,40})""", re.IGNORECASE)
_CHARSET_WITHIN = 1024  # https://html.spec.whatwg.org/#charset
_UNSEEN = frozenset(("script", "style", "template", "noscript", "object", "iframe", "svg", "math", "select"))
_BLOCKS = ("p", "div", "section", "article", "header", "footer", "main", "aside", "nav", "blockquote", "body")
_LISTS = ("ul", "ol", "dl", "dt", "dd", "li", "table", "tr", "figure", "figcaption", "form", "hr", "title")
_LINES = frozenset((*_BLOCKS, *_LISTS, "address", "pre"))
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_PARAGRAPHS = frozenset((*_HEADINGS, "p", "table", "pre"))
_SIGNS = {"br": "\n", "td": "\t", "th": "\t", "li": "- "}
_SPACES = re.compile(r"[ \t\n\r\f\v]+")


def read_html(data: bytes, words: Words) -> str | None:
    """Write the text of the page; what is to be said of its encoding, if that is a guess.

    Raises `Unreadable`, `Enough`.
    """
    text, note = _decoded(data)
    page = _Page(words)
    page.feed(text)
    page.close()
    return note


def _decoded(data: bytes) -> tuple[str, str | None]:
    named = _CHARSET.search(data[:_CHARSET_WITHIN])
    if named:
        try:
            return data.decode(named[1].decode("ascii")), None
        except (LookupError, UnicodeError):
            pass  # it says what is not true
    return decoded(data)


class _Page(HTMLParser):
    def __init__(self, words: Words) -> None:
        super().__init__(convert_charrefs=True)
        self._words = words
        self._unseen: list[str] = []
        self._preserved = 0
        self._has_space = True

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._unseen:
            if tag == self._unseen[-1]:
                self._unseen.append(tag)
            return
        if tag in _UNSEEN:
            self._unseen.append(tag)
            return
        if tag in _LINES:
            self._new_line()
        match tag:
            case "pre":
                self._preserved += 1
            case "img":
                self._put(f"[{alternative}]" if (alternative := dict(attrs).get("alt")) else "")
            case _ if tag in _HEADINGS:
                self._words.paragraph()
                self._put(_HEADINGS[tag])
            case _:
                self._put(_SIGNS.get(tag, ""))

    def handle_endtag(self, tag: str) -> None:
        if self._unseen:
            if tag == self._unseen[-1]:
                self._unseen.pop()
            return
        if tag == "pre":
            self._preserved = max(0, self._preserved - 1)
        if tag in _PARAGRAPHS:
            self._words.paragraph()
            self._has_space = True
        elif tag in _LINES:
            self._new_line()

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if self._preserved:
            self._put(data)
            return
        text = _SPACES.sub(" ", data)
        self._put(text.removeprefix(" ") if self._has_space else text)

    def _new_line(self) -> None:
        self._words.line()
        self._has_space = True

    def _put(self, text: str) -> None:
        if text:
            self._words.write(text)
            self._has_space = text[-1] in " \t\n"
