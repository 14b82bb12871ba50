"""Words and phrases found in a text, all of them in one pass.

Compared after NFC and case folding, a run of spaces being one space. Word boundaries are the simple ones of Unicode
(UTS #18, RL1.4): a word is a run of letters, digits, connectors such as `_`, and the marks on them. Characters of
scripts that are written without spaces stand for themselves, so that keywords are substrings there.
"""

import re
import unicodedata
from collections import deque
from collections.abc import Iterable

Phrase = tuple[str, ...]
"""A keyword as its tokens."""

_WITHOUT_SPACES = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff"  # Tibetan
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17ff"  # Khmer
    "\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf"  # Tai Le, New Tai Lue, Tai Tham, Tai Viet
    "\u1b00-\u1b7f\ua980-\ua9df"  # Balinese, Javanese
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f\U0001aff0-\U0001b16f"  # Hiragana, Katakana
    "\u3100-\u312f\u31a0-\u31bf"  # Bopomofo
)
_JOINERS = "\u200c\u200d"
_MARKS = _JOINERS + "".join(c for c in map(chr, range(0x300, 0x1F000)) if unicodedata.category(c)[0] == "M")
_LETTERS = rf"[0-9A-Za-z_]++|[^\W\0-\x7f{_WITHOUT_SPACES}]++"
_TOKEN = re.compile(rf"(?:{_LETTERS})(?:{_LETTERS}|[{_MARKS}]++)*+|.", re.DOTALL)
_ASCII_TOKEN = re.compile(r"\w++|.", re.DOTALL | re.ASCII)
"""The same for texts of ASCII only, in a fifth of the time."""


def tokens(text: str) -> Phrase:
    """Words, and everything else character by character."""
    folded = " ".join(_folded(text).split())
    return tuple((_ASCII_TOKEN if folded.isascii() else _TOKEN).findall(folded))


def _folded(text: str) -> str:
    """Equal for texts that differ in case or in how they compose characters only (Unicode, D145)."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


class KeywordIndex:
    """Finds which of many phrases a text contains, after Aho and Corasick (1975), with tokens for letters.

    A state is what of some phrase has been read so far. What does not go on with one phrase may be the beginning of
    another: `_fallback` is the state of the longest such beginning. Other phrases may have ended within what was
    read: `_ended_within` is the longest of these.
    """

    def __init__(self, phrases: Iterable[tuple[str, Phrase]]) -> None:
        """`phrases` come with the names by which `matching` reports them."""
        self._next: list[dict[str, int]] = [{}]
        self._names: list[list[str]] = [[]]
        for name, phrase in phrases:
            self._names[self._state_of(phrase)].append(name)
        self._fallback = [0] * len(self._next)
        self._ended_within = [0] * len(self._next)
        self._link()

    def matching(self, text: str) -> set[str]:
        """The names of all phrases that the text contains."""
        found: set[str] = set()
        seen = {0}
        state, first = 0, self._next[0]
        for token in tokens(text) if first else ():
            state = self._after(state, token) if state else first.get(token, 0)
            ended = state
            while ended not in seen:
                seen.add(ended)
                found.update(self._names[ended])
                ended = self._ended_within[ended]
        return found

    def _after(self, state: int, token: str) -> int:
        while state and token not in self._next[state]:
            state = self._fallback[state]
        return self._next[state].get(token, 0)

    def _state_of(self, phrase: Phrase) -> int:
        state = 0
        for token in phrase:
            following = self._next[state].setdefault(token, len(self._next))
            if following == len(self._next):
                self._next.append({})
                self._names.append([])
            state = following
        return state

    def _link(self) -> None:
        """Shorter states first, as longer ones fall back on them."""
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for token, following in self._next[state].items():
                fallback = self._after(self._fallback[state], token)
                self._fallback[following] = fallback
                self._ended_within[following] = fallback if self._names[fallback] else self._ended_within[fallback]
                waiting.append(following)
