"""What a reader has read so far, up to as much as is wanted."""


class Enough(Exception):
    """As much has been read as is wanted."""


class Unreadable(Exception):
    """The document cannot be read; the message says why, for people."""


class Words:
    """Collects text up to a number of characters. Blank lines do not pile up."""

    def __init__(self, most: int) -> None:
        self.media_type: str | None = None
        """What the document turned out to be, if that is another kind than was thought."""
        self._most = most
        self._pieces: list[str] = []
        self._count = 0
        self._newlines = 2  # nothing begins with blank lines

    def write(self, text: str) -> None:
        """Add text as it is. Raises `Enough`, after what still has room."""
        if not text:
            return
        room = self._most - self._count
        piece = text[:room]
        self._pieces.append(piece)
        self._count += len(piece)
        ending = len(text) - len(text.rstrip("\n"))
        self._newlines = self._newlines + ending if ending == len(text) else ending
        if len(text) > room:
            raise Enough

    def line(self) -> None:
        """Go to the beginning of a line."""
        if self._newlines == 0:
            self.write("\n")

    def paragraph(self) -> None:
        """Leave a blank line, unless there is one."""
        if self._newlines < 2:
            self.write("\n" * (2 - self._newlines))

    @property
    def text(self) -> str:
        """All of it, as PostgreSQL can keep it."""
        return "".join(self._pieces).replace("\0", "").rstrip()
