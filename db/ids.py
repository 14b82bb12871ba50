"""Ids: UUIDs of version 7 (RFC 9562, section 5.7), so that newer rows sort after older ones."""

import os
import time
from typing import NewType
from uuid import UUID

UserId = NewType("UserId", UUID)
PersonaId = NewType("PersonaId", UUID)
ModuleId = NewType("ModuleId", UUID)
SessionId = NewType("SessionId", UUID)
MessageId = NewType("MessageId", UUID)
RunId = NewType("RunId", UUID)
ReplicaId = NewType("ReplicaId", UUID)
MemoryId = NewType("MemoryId", UUID)
SummaryId = NewType("SummaryId", UUID)
FileId = NewType("FileId", UUID)
SignInId = NewType("SignInId", UUID)
ApiKeyId = NewType("ApiKeyId", UUID)
InvitationId = NewType("InvitationId", UUID)
ConnectionId = NewType("ConnectionId", UUID)

LOCAL_OWNER = UserId(UUID("00000000-0000-7000-8000-000000000001"))
"""The one owner of a service without accounts."""


def new_id() -> UUID:
    """A fresh UUID: 48 bits of milliseconds, 12 bits of the millisecond's fraction, 62 random bits."""
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    random = int.from_bytes(os.urandom(8), "big") >> 2
    return UUID(int=(milliseconds & (1 << 48) - 1) << 80 | 7 << 76 | fraction << 64 | 0b10 << 62 | random)
