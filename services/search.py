"""Searching everything that one has said and was answered."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from db.ids import MessageId, SessionId, UserId
from db.records import MessageRole
from db.stores.search import Filter, Found, SearchStore
from db.stores.sessions import SessionStore
from services.errors import InvalidRequest, no_session

_TERMS = 20
_SHORTEST_PREFIX = 2
"""Letters of a word that is still being typed; with fewer, nearly every message would be found."""
_LOOKED_AT = 20_000
_AT_ONCE = 2
"""Searches that are made at the same time: the others leave the database to conversations."""
_BEFORE, _AFTER = 60, 180
"""Characters of an excerpt before and after what was found first."""

_TERM = re.compile(r'(?P<not>-?)(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))')
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]"
)
"""Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese; Korean, whose words grow."""


@dataclass(frozen=True, slots=True)
class Term:
    """A word or a phrase that is sought; `is_prefix`: words that begin so will do. `OR` is a term, too."""

    text: str
    is_prefix: bool = False
    is_unwanted: bool = False


OR = Term("or")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an excerpt, and whether it is what was sought."""

    text: str
    is_match: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """A message that was found, with the place in it."""

    message: Found
    excerpt: Sequence[Piece]


class MessageSearch:
    """Searches an owner's history."""

    def __init__(self, search: SearchStore, sessions: SessionStore) -> None:
        self._search = search
        self._sessions = sessions
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def find(
        self,
        owner_id: UserId,
        q: str,
        *,
        session_id: SessionId | None,
        role: MessageRole | None,
        before: MessageId | None,
        limit: int,
    ) -> tuple[list[Hit], MessageId | None]:
        """Messages with all words of `q`, newest first, and where the next page begins if there is one.

        "Phrases" stand in quotation marks, `-` goes before what is not wanted; a word with `*` is the beginning of one,
        and so is the last word while nothing follows it. What cannot be found by words is looked for as it is written,
        in the newest 20,000 messages. Raises `InvalidRequest`, and `NotFound` for the session.
        """
        terms = parse(q)
        if all(term.is_unwanted or term is OR for term in terms):
            raise InvalidRequest("Say what is to be found.", field="q")
        if session_id is not None and await self._sessions.get(session_id, owner_id) is None:
            raise no_session(field="session_id")
        where = Filter(session_id, role, before, limit + 1)
        async with self._places:
            found, sought = await self._found(owner_id, q.strip(), terms, where)
        hits = await asyncio.to_thread(_excerpts, found[:limit], sought)
        return hits, found[limit - 1].id if len(found) > limit else None

    async def _found(
        self, owner_id: UserId, q: str, terms: Sequence[Term], where: Filter
    ) -> tuple[list[Found], re.Pattern[str]]:
        if not _UNSPACED.search(q):
            found = await self._search.by_words(
                owner_id,
                " ".join(_as_typed(term) for term in terms if not term.is_unwanted and not term.is_prefix),
                " & ".join(_as_prefix(term) for term in terms if term.is_prefix),
                " or ".join(_as_typed(term) for term in terms if term.is_unwanted),
                where,
            )
            if found:
                return found, _pattern(terms)
        text = q.strip('"')
        found = await self._search.by_text(owner_id, text, where, steps=_LOOKED_AT)
        return found, re.compile(re.escape(text), re.IGNORECASE)


def parse(q: str) -> list[Term]:
    """What is sought, term by term. Raises `InvalidRequest` for too many."""
    terms = [_term(match) for match in _TERM.finditer(q)]
    terms = [term for term in terms if any(character.isalnum() for character in term.text)] or _verbatim(q)
    if len(terms) > _TERMS:
        raise InvalidRequest(f"At most {_TERMS} words can be sought at once.", field="q")
    if OR in terms:  # of alternatives each is a whole word
        return [replace(term, is_prefix=False) if term.is_prefix else term for term in terms]
    last = terms[-1] if terms else OR
    if q[-1:].isalnum() and len(last.text) >= _SHORTEST_PREFIX and not last.is_unwanted:
        terms[-1] = replace(last, is_prefix=True)
    return terms


def excerpt(content: str, sought: re.Pattern[str]) -> list[Piece]:
    """The surroundings of what was found first, in pieces; the beginning if it was found in some other form."""
    first = sought.search(content)
    start = max(0, (first.start() if first else 0) - _BEFORE)
    end = (first.start() if first else 0) + _AFTER
    shown = _excerpt_of(content, start, end)
    pieces: list[Piece] = []
    position = 0
    for match in sought.finditer(shown):
        if match.end() > match.start():
            pieces += [Piece(shown[position : match.start()], is_match=False), Piece(match[0], is_match=True)]
            position = match.end()
    pieces.append(Piece(shown[position:], is_match=False))
    return [piece for piece in pieces if piece.text]


def _excerpt_of(content: str, start: int, end: int) -> str:
    before = "…" if start > 0 else ""
    after = "…" if end < len(content) else ""
    return f"{before}{content[start:end]}{after}"


def _verbatim(q: str) -> list[Term]:
    """What has no letter or digit in it is looked for as it stands."""
    return [Term(q.strip())] if q.strip() else []


def _term(match: re.Match[str]) -> Term:
    phrase, word, is_unwanted = match["phrase"], match["word"], bool(match["not"])
    if phrase is not None:
        return Term(phrase, is_unwanted=is_unwanted)
    if word.lower() == "or" and not is_unwanted:
        return OR
    stem = word.rstrip("*")
    is_prefix = len(stem) < len(word) and len(stem) >= _SHORTEST_PREFIX and not is_unwanted
    return Term(stem, is_prefix, is_unwanted)


def _as_typed(term: Term) -> str:
    """The term as one types it; in quotation marks nothing in it has a meaning."""
    return "or" if term is OR else f'"{term.text}"'


def _as_prefix(term: Term) -> str:
    quoted = term.text.replace("\\", "\\\\").replace("'", "''")
    return f"'{quoted}':*"


def _pattern(terms: Sequence[Term]) -> re.Pattern[str]:
    """Finds what is sought in a text, longest first."""
    wanted = sorted(
        (term for term in terms if not term.is_unwanted and term is not OR), key=lambda term: -len(term.text)
    )
    return re.compile("|".join(map(_pattern_of, wanted)), re.IGNORECASE)


def _pattern_of(term: Term) -> str:
    words = re.findall(r"\w+", term.text)
    if not words:
        return re.escape(term.text)
    return r"\b" + r"\W+".join(words) + (r"\w*" if term.is_prefix else r"\b")


def _excerpts(found: Sequence[Found], sought: re.Pattern[str]) -> list[Hit]:
    return [Hit(message, excerpt(message.content, sought)) for message in found]
