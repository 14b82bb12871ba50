"""`ctx`: what scripts keep of this session, and what they have not kept yet."""

import hashlib
from uuid import UUID

import orjson

from db.ids import MemoryId
from db.records import MemoryRecord
from db.stores.memories import MemoryStore
from db.stores.messages import Extent, MessageStore
from services.prompt.conversation import (
    MOST_BYTES,
    MOST_MESSAGES,
    QUERY_CHARACTERS,
    Branches,
    JsonObject,
    as_objects,
    at_least_0,
    id_or_none,
    within,
)
from services.prompt.view import TurnView
from services.scripts.types import ScriptFault
from services.scripts.values import Json

MOST_MEMORIES = 100
"""One call gives no more memories than this, and one run of a script stores no more."""
MEMORY_BYTES = 64 * 1024
METADATA_BYTES = 16 * 1024


class MemoryFunctions:
    """Reads and keeps memories of the run's session."""

    def __init__(self, view: TurnView, branches: Branches, messages: MessageStore, memories: MemoryStore) -> None:
        self._view = view
        self._session_id = view.record.session_id
        self._owner_id = view.record.owner_id
        self._branches = branches
        self._messages = messages
        self._memories = memories
        self._stored = 0
        self.functions = (
            self.get_buffer_messages,
            self.should_compress_buffer,
            self.should_compress_buffer_by_ids,
            self.store_memory,
            self.get_recent_memories,
            self.search_memories,
            self.get_memory_status,
            self.clear_memories,
        )

    async def get_buffer_messages(self, start_index: int, end_index: int | None) -> list[JsonObject]:
        """Messages that no memory covers, gaps between memories included; where not all fit, the first ones."""
        start = at_least_0("start_index", start_index)
        limit = MOST_MESSAGES if end_index is None else at_least_0("end_index", end_index) + 1 - start
        lines = await self._messages.lines(
            await self._branches.own(),
            first=start,
            limit=within(limit, MOST_MESSAGES),
            max_bytes=MOST_BYTES,
            uncovered_only=True,
        )
        return as_objects(lines)

    async def should_compress_buffer(self, max_messages: int, max_tokens: int) -> bool:
        """Whether the buffer exceeds either number."""
        extent = await self._extent()
        return extent.uncovered_messages > max_messages or extent.uncovered_tokens > max_tokens

    async def should_compress_buffer_by_ids(self, ids: list[str], max_messages: int, max_tokens: int) -> bool:
        """Whether those messages exceed either number; ids that this session does not have count for nothing."""
        wanted = {found for text in ids if (found := id_or_none(text))}
        messages, tokens = await self._messages.count_among(self._session_id, self._owner_id, wanted)
        return messages > max_messages or tokens > max_tokens

    async def store_memory(self, content: str, message_range: list[int] | None, metadata: JsonObject | None) -> str:
        """Keep a memory. The n-th memory of a module in a run is stored once, however often the run is repeated."""
        _check_size("a memory", len(content.encode()), MEMORY_BYTES)
        _check_size("metadata", len(orjson.dumps(metadata)), METADATA_BYTES)
        first, last = await self._positions(message_range)
        if self._stored >= MOST_MEMORIES:
            raise ScriptFault(f"a script stores at most {MOST_MEMORIES} memories in a run")
        memory_id = memory_id_of(self._view.record.id, self._view.module.id, self._stored)
        self._stored += 1
        memory = await self._memories.add(
            memory_id,
            self._session_id,
            self._owner_id,
            content,
            first_message=first,
            last_message=last,
            metadata=metadata,
        )
        if memory is None:
            raise ScriptFault("the session was deleted")
        return str(memory.id)

    async def get_recent_memories(self, limit: int) -> list[JsonObject]:
        """The newest memories, newest first: at most 100, and 256 KiB of them."""
        limit = within(at_least_0("limit", limit), MOST_MEMORIES)
        return _as_objects(await self._memories.newest(self._session_id, self._owner_id, limit=limit))

    async def search_memories(self, query: str, limit: int) -> list[JsonObject]:
        """Memories that have any of the words, the best first: at most 100, and 256 KiB of them."""
        limit = within(at_least_0("limit", limit), MOST_MEMORIES)
        sought = query[:QUERY_CHARACTERS].strip()
        if not sought:
            return []
        return _as_objects(await self._memories.search(self._session_id, self._owner_id, sought, limit=limit))

    async def get_memory_status(self) -> JsonObject:
        """How much is kept, and how much is not yet."""
        extent = await self._extent()
        return {
            "memories": await self._memories.count(self._session_id, self._owner_id),
            "buffer_messages": extent.uncovered_messages,
            "buffer_tokens": extent.uncovered_tokens,
            "total_messages": extent.messages,
        }

    async def clear_memories(self) -> int:
        """Forget all memories of the session; every message is in the buffer again."""
        return await self._memories.clear(self._session_id, self._owner_id)

    async def _extent(self) -> Extent:
        return await self._messages.extent(await self._branches.own())

    async def _positions(self, message_range: list[int] | None) -> tuple[int, int] | tuple[None, None]:
        """First and last position. Raises `ScriptFault` unless both are positions of this conversation."""
        if message_range is None:
            return None, None
        match message_range:
            case [first, last] if 0 <= first <= last < (await self._extent()).messages:
                return first, last
            case _:
                raise ScriptFault("message_range must be [first, last], two positions of messages", "ValueError")


def memory_id_of(run_id: UUID, module_id: UUID, number: int) -> MemoryId:
    """The id of the memory that a module stores as its `number`-th in a run, counted from 0.

    A UUID of version 7 that sorts by the time of the run, then by number: memories are read in the order of their ids.
    """
    named = hashlib.sha256(run_id.bytes + module_id.bytes + number.to_bytes(2, "big")).digest()
    milliseconds = run_id.int >> 80
    random = int.from_bytes(named[:8], "big") >> 2
    return MemoryId(UUID(int=milliseconds << 80 | 7 << 76 | number << 64 | 0b10 << 62 | random))


def _as_objects(memories: list[MemoryRecord]) -> list[JsonObject]:
    """As many of the first memories as one call may give."""
    objects: list[JsonObject] = []
    room = MOST_BYTES
    for memory in memories:
        metadata: Json = memory.metadata
        room -= len(memory.content.encode()) + len(orjson.dumps(metadata))
        if room < 0:
            break
        objects.append(
            {
                "id": str(memory.id),
                "content": memory.content,
                "metadata": metadata,
                "created_at": memory.created_at.isoformat(),
            }
        )
    return objects


def _check_size(what: str, size: int, most: int) -> None:
    if size > most:
        raise ScriptFault(f"{what} has at most {most:,} bytes", "ValueError")
