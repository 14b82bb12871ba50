"""Names under which models know tools: unique among all servers, in the letters that every model server takes."""

import hashlib
import re

LONGEST_NAME = 64
_FOREIGN = re.compile(r"[^a-zA-Z0-9_-]")
_HASH_LETTERS = 8


def qualified_name(server: str, tool: str) -> str:
    """`server__tool`; where that is no possible name, as much of it as fits and a hash of the tool's own name.

    The same tool always has the same name, whatever other tools there are. Names of servers have no `__` and do not
    end with `_`, so no two servers can share one.
    """
    prefix = f"{server}__"
    clean = _FOREIGN.sub("_", tool)
    room = LONGEST_NAME - len(prefix)
    if clean == tool and 0 < len(tool) <= room:
        return prefix + tool
    digest = hashlib.sha256(tool.encode(errors="surrogatepass")).hexdigest()[:_HASH_LETTERS]
    return f"{prefix}{clean[: room - _HASH_LETTERS - 1]}_{digest}"
