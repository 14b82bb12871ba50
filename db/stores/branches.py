"""Where branches end."""

from typing import TYPE_CHECKING

from db.ids import MessageId, SessionId

if TYPE_CHECKING:
    from db.pool import PooledConnection


async def newest_leaf(connection: "PooledConnection", session_id: SessionId, message_id: MessageId) -> MessageId | None:
    """The end of the newest branch that runs through the message; None if the session has no such message.

    Where several messages follow the same one, the newest of them counts. A reply that is being made is the newest,
    though it is not stored yet: the branch then ends where it will stand. One look-up for each message on the way.
    """
    return await connection.fetchval(
        """
        WITH RECURSIVE path AS (
            SELECT id, 0 AS depth FROM messages WHERE id = $2 AND session_id = $1
            UNION ALL
            SELECT child.id, path.depth + 1
            FROM path
            CROSS JOIN LATERAL (
                SELECT id, waits_for FROM messages
                WHERE parent_id = path.id AND session_id = $1 ORDER BY id DESC LIMIT 1
            ) child
            WHERE NOT EXISTS (
                SELECT FROM runs
                WHERE session_id = $1 AND state <> 'finished' AND user_message_id = path.id
                  AND id IS DISTINCT FROM child.waits_for
            )
        )
        SELECT id FROM path ORDER BY depth DESC LIMIT 1
        """,
        session_id,
        message_id,
    )
