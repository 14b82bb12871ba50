"""How many tokens a text has, without a network.

tiktoken ships no ranks and would fetch them at the first count, so they lie beside this file. One encoding serves all
models: other families divide text a little differently, so every count is an estimate.
"""

import asyncio
import base64
import hashlib
import lzma
import re
from collections.abc import Iterator
from pathlib import Path

import tiktoken

MESSAGE_OVERHEAD = 4
"""Tokens a message costs beyond its text: chat formats wrap it in two markers, the name of its role and a separator."""

INLINE_CHARACTERS = 8_192
"""Up to this length a count takes 1 ms or less, and 4 ms for the most hostile text."""

SLICE_CHARACTERS = 8_192
"""Longest piece given to tiktoken at once. Its cost for a long run of one character grows faster than the run, and a
run of a million spaces makes it panic."""

CUT_ALLOWANCE = 8
"""Tokens added for a cut inside a word. Merging is greedy, so two halves can have fewer tokens than the whole. In
300,000 random tries the difference was never more than 2; that it cannot be is not proven."""

RANKS = Path(__file__).parent / "data" / "o200k_base.tiktoken.xz"
RANKS_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"

PATTERN = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
"""How o200k_base divides text into words before merging (from `tiktoken_ext/openai_public.py`, tiktoken 0.14)."""


class RanksDamaged(Exception):
    """The token ranks are not the published ones: install the service again."""


class TokenCounter:
    """Counts tokens; reads the ranks at the first count, or at `load()`, whichever comes first."""

    def __init__(self, ranks: Path = RANKS) -> None:
        self._ranks = ranks
        self._encoding: tiktoken.Encoding | None = None
        self._loading = asyncio.Lock()

    async def load(self) -> None:
        """Return once counting is possible.

        Takes 0.4 s and 80 MB, once, in a thread; for 0.15 s of it tiktoken holds the interpreter, and with it the event
        loop. Best begun before anybody is served.

        Raises:
            RanksDamaged: the file is not the published one.
        """
        await self._loaded()

    async def count(self, text: str) -> int:
        """The tokens of `text`: exact for o200k_base, or a little too many for words of thousands of characters."""
        encoding = self._encoding or await self._loaded()
        if len(text) <= INLINE_CHARACTERS:
            return count_tokens(encoding, text)
        return await asyncio.to_thread(count_tokens, encoding, text)

    async def count_message(self, text: str) -> int:
        """The tokens of `text` as the content of one message."""
        return MESSAGE_OVERHEAD + await self.count(text)

    async def _loaded(self) -> tiktoken.Encoding:
        async with self._loading:
            if self._encoding is None:
                self._encoding = await asyncio.to_thread(read_encoding, self._ranks)
            return self._encoding


def read_encoding(path: Path) -> tiktoken.Encoding:
    """The o200k_base encoding from its compressed ranks.

    Raises:
        RanksDamaged: the file is not the published one.
    """
    try:
        ranks = lzma.decompress(path.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise RanksDamaged(f"{path} cannot be read: {error}") from error
    if hashlib.sha256(ranks).hexdigest() != RANKS_SHA256:
        raise RanksDamaged(f"{path} does not hold the published ranks")
    pairs = (line.split() for line in ranks.splitlines())
    mergeable = {base64.b64decode(token): int(rank) for token, rank in pairs}
    # No special tokens: a user who types <|endoftext|> has typed just that.
    return tiktoken.Encoding("o200k_base", pat_str=PATTERN, mergeable_ranks=mergeable, special_tokens={})


def count_tokens(encoding: tiktoken.Encoding, text: str, slice_characters: int = SLICE_CHARACTERS) -> int:
    """The tokens of `text`, never fewer than tiktoken would count in one go."""
    return sum(
        len(encoding.encode_ordinary(piece)) + (0 if exact else CUT_ALLOWANCE)
        for piece, exact in sliced(text, slice_characters)
    )


PUNCTUATION = r"!-&(-/:-@\[-`{-~\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
"""ASCII's without the apostrophe, which may be part of a word, and the commonest of scripts that use no spaces."""

BETWEEN_WORDS = re.compile(rf"(?<=\S)(?= )|(?<=[\r\n])(?=[^\s/])|(?<=[^\W_])(?=[{PUNCTUATION}])|(?<=[a-zA-Z])(?=[0-9])")
"""Places at which `PATTERN` always divides, whatever stands farther left or right: cutting there changes no count."""

REACH = 512


def sliced(text: str, size: int) -> Iterator[tuple[str, bool]]:
    """`text` in pieces of at most `size` characters, each with whether the cut after it changes no count."""
    start = 0
    while len(text) - start > size:
        end = start + size
        between = BETWEEN_WORDS.search(text, max(start + 1, end - REACH), end + 1)
        cut = between.start() if between else end
        yield text[start:cut], between is not None
        start = cut
    yield text[start:], True
