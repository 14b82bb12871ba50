"""`python -m api rotate-keys`: what is sealed with older secrets of the service is sealed with the newest."""

from collections.abc import AsyncGenerator

from api.keys import secret_keys
from api.settings import Settings
from api.supervisor import reached
from db.pool import Database
from db.stores.connections import ConnectionStore
from services.connections.rotation import KeyRotation, Rotated
from services.connections.vault import PURPOSE, KeyVault

_TOLD = 20


class KeysLeft(Exception):
    """Some keys cannot be opened with any secret of the ring."""


async def rotate_keys(settings: Settings) -> AsyncGenerator[str, None]:
    """Seal the keys of saved connections anew, beside a running service or without one; tells what was done.

    Raises `KeysLeft` at the end if some could not be, `BadSettings` and `DatabaseNotReady`.
    """
    vault = KeyVault(secret_keys(settings).derive(PURPOSE))
    async with reached(settings) as url:
        pool = await Database.connect(url, size=1)
        try:
            done = await KeyRotation(ConnectionStore(pool), vault).run()
        finally:
            await pool.close()
    yield f"{done.resealed} keys of model servers are sealed with the newest secret now."
    if done.unreadable:
        raise KeysLeft(_left(done))
    yield "Older secrets can be taken out of SECRET_KEY, as far as these keys are concerned."


def _left(done: Rotated) -> str:
    ids = ", ".join(map(str, done.unreadable[:_TOLD]))
    return (
        f"{len(done.unreadable)} keys cannot be opened with any of the secrets that are known here. Either an older "
        f"one is missing from SECRET_KEY, or their owners have to give them again. Connections: {ids}"
    )
