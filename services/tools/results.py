"""Results as a model is given them: as much as fits, and how to read on."""

from services.context.tokens import TokenCounter

READ_ON = "read_tool_result"
"""The tool with which a model reads what it was not given."""

_NOTE_TOKENS = 60
_LEAST_TOKENS = 50
_CHARACTERS_PER_TOKEN = 16
"""More than a token of any text but blanks has: what is longer need not be counted to be known to be too long."""


class ResultCutter:
    """Cuts results to a budget of tokens."""

    def __init__(self, tokens: TokenCounter, *, budget: int) -> None:
        self._tokens = tokens
        self._budget = budget

    async def cut(self, text: str, call_id: str, *, offset: int = 0, whole: int | None = None) -> str:
        """`text` if it fits, else its beginning and how to go on.

        It begins at `offset` of a result that is `whole` characters long.
        """
        length = len(text) if whole is None else whole
        if offset + len(text) >= length and await self._fits(text, self._budget):
            return text
        piece, end = await self.piece(text, offset=offset)
        if end >= length:
            return piece
        note = f'characters {offset} to {end} of {length}. Go on with {READ_ON}(id="{call_id}", offset={end})'
        return f"{piece}\n\n[Shortened: {note}.]"

    async def piece(self, text: str, *, offset: int = 0) -> tuple[str, int]:
        """As much of `text`, which begins at `offset`, as fits with a note after it; and where it ends."""
        room = max(self._budget - _NOTE_TOKENS, _LEAST_TOKENS)
        piece = text[: room * _CHARACTERS_PER_TOKEN]
        while (tokens := await self._tokens.count(piece)) > room:
            piece = piece[: int(len(piece) * 0.95 * room / tokens)]
        return piece, offset + len(piece)

    async def _fits(self, text: str, room: int) -> bool:
        if len(text) > room * _CHARACTERS_PER_TOKEN:
            return False
        return await self._tokens.count(text) <= room
