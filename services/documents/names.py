"""What a file is called: data that people read, never a path."""

import re
import unicodedata
from pathlib import PurePosixPath

_LONGEST = 255
_LONGEST_EXTENSION = 16
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Controls and what changes the direction of writing, by which a name can look like another."""


def clean_name(sent: str) -> str:
    """The name without folders and without what cannot be seen, at most 255 bytes in UTF-8; never empty."""
    last = re.split(r"[/\\]", sent)[-1]
    seen = "".join(sign for sign in last if unicodedata.category(sign) not in _UNSEEN)
    name = " ".join(unicodedata.normalize("NFC", seen).split())
    return _shortened(name) if name.strip(". ") else "file"


def _shortened(name: str) -> str:
    """Cut in the middle: what it ends with tells what it is."""
    if len(name.encode()) <= _LONGEST:
        return name
    suffixes = [suffix for suffix in PurePosixPath(name).suffixes[-2:] if len(suffix) <= _LONGEST_EXTENSION]
    ending = "".join(suffixes)
    room = _LONGEST - len(ending.encode())
    return name.removesuffix(ending).encode()[:room].decode("utf-8", "ignore") + ending
