"""Files handed out so that no browser takes them for anything but files."""

import unicodedata
from urllib.parse import quote


def attachment(name: str) -> str:
    """A Content-Disposition (RFC 6266) under which the file is saved, never shown.

    Old programs read an approximation in ASCII, all others the name itself (RFC 8187).
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    safe = "".join(sign if sign.isalnum() or sign in " .-_()" else "_" for sign in plain).strip(" .") or "file"
    return f"attachment; filename=\"{safe}\"; filename*=UTF-8''{quote(name, safe='')}"
