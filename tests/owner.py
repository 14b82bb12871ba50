"""A process that owns a PostgreSQL in the directory that it is given, says so, and waits to be killed.

python -m tests.owner DIRECTORY: writes the server's pid and its DSN on one line, then waits for its input to end.
"""

import asyncio
import sys
from pathlib import Path

from db.binaries import find_binaries
from db.embedded import EmbeddedPostgres


async def main(directory: Path) -> None:
    async with EmbeddedPostgres(directory, find_binaries()) as postgres:
        sys.stdout.write(f"{postgres.pid} {postgres.dsn()}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
