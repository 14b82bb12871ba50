"""A session in which something was said, and a module that looks at it from within a run."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from db.ids import MessageId, ModuleId, PersonaId, RunId, SessionId, UserId, new_id
from db.pool import Database
from db.records import MessageRole, ModuleRecord, PersonaRecord, RunRecord
from db.stores.memories import MemoryStore
from db.stores.messages import MessageStore
from db.stores.sessions import SessionStore
from services.agent.types import Usage
from services.casting import Casting
from services.prompt.host import TurnHost
from services.providers.registry import Providers
from services.scripts.api import plugin_functions
from services.scripts.types import ScriptFault
from services.scripts.values import Json
from tests.connections import directory_of

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DECLARED = {function.name: function for function in plugin_functions()}


@dataclass
class Sight:
    """A `TurnView` that notes what it is asked."""

    record: RunRecord
    casting: Casting
    module: ModuleRecord
    user_message: str = "And now?"
    reply: str | None = None
    prompt: str = "You are kind."
    variables: dict[str, Json] = field(default_factory=dict[str, Json])
    outputs: dict[tuple[str, str], Json] = field(default_factory=dict[tuple[str, str], Json])
    questions_left: int = 10
    spent: list[Usage] = field(default_factory=list[Usage])

    def module_output(self, module: str, output: str) -> Json:
        return self.outputs.get((module, output))

    async def run_module(self, name: str) -> str:
        return f"text of {name}"

    def begin_generation(self) -> None:
        if not self.questions_left:
            raise ScriptFault("asked too often")
        self.questions_left -= 1

    def spend(self, usage: Usage) -> None:
        self.spent.append(usage)


class Scene:
    """One user's session. Whatever is said gets a minute of its own, from noon on."""

    def __init__(self, database: asyncpg.Connection, pool: Database, providers: Providers) -> None:
        self.owner_id = UserId(new_id())
        self.session_id = SessionId(new_id())
        self.run_id = RunId(new_id())
        self.said: list[MessageId] = []
        self._database = database
        self._pool = pool
        self._providers = providers

    async def begin(self) -> None:
        """Store the user and the session."""
        await self._database.execute("insert into users (id, display_name) values ($1, 'Somebody')", self.owner_id)
        await self._database.execute(
            "insert into sessions (id, owner_id) values ($1, $2)", self.session_id, self.owner_id
        )
        await self._database.execute("insert into journals (session_id) values ($1)", self.session_id)

    async def say(
        self, *contents: str, tokens: int = 10, after: MessageId | None = None, role: MessageRole | None = None
    ) -> None:
        """Store messages of the user and the assistant in turn, and end the active branch with the last."""
        for content in contents:
            message_id = MessageId(new_id())
            await self._database.execute(
                """
                insert into messages (id, session_id, parent_id, run_id, role, content, token_count, created_at)
                values ($1, $2, $3, $4, $5, $6, $7, $8)
                """,
                message_id,
                self.session_id,
                after or (self.said[-1] if self.said else None),
                self.run_id,
                role or ("assistant" if len(self.said) % 2 else "user"),
                content,
                tokens,
                NOON + timedelta(minutes=len(self.said)),
            )
            self.said.append(message_id)
            after = None
        await self._database.execute(
            "update sessions set active_leaf_id = $2 where id = $1", self.session_id, self.said[-1]
        )

    async def give_to(self, owner_id: UserId) -> None:
        """Make the session another user's."""
        self.owner_id = owner_id
        await self._database.execute("update sessions set owner_id = $2 where id = $1", self.session_id, owner_id)

    def sight(self, leaf: MessageId | None = None, **known: Any) -> Sight:
        """What a module sees in the run of the message `leaf`, by default the newest."""
        provider = self._providers.get()
        casting = Casting(known.pop("persona", None), None, "You", provider, "fake-small", known.pop("controls", {}))
        record = _run(self.run_id, self.session_id, self.owner_id, leaf or (self.said or [MessageId(new_id())])[-1])
        return Sight(record, casting, _module(self.owner_id), **known)

    def host(self, view: Sight | None = None) -> TurnHost:
        """The host of a script of that module."""
        return TurnHost(
            view or self.sight(),
            messages=MessageStore(self._pool),
            memories=MemoryStore(self._pool),
            sessions=SessionStore(self._pool),
            connections=directory_of(self._providers, self._pool),
        )


async def call(host: TurnHost, name: str, *args: Json, **kwargs: Json) -> Any:
    """Call `ctx.<name>` as a script would."""
    return await host.call(name, DECLARED[name].bind(args, kwargs))


def persona(owner_id: UserId) -> PersonaRecord:
    """A persona that likes to be brief."""
    return PersonaRecord(
        id=PersonaId(new_id()),
        owner_id=owner_id,
        name="Ada",
        slug="ada",
        description="Brief.",
        template="",
        mode="reactive",
        schedule=None,
        first_message=None,
        image=None,
        connection=None,
        model=None,
        controls={},
        tools={},
        module_ids=[],
        refers_to=[],
        is_active=True,
        is_default=False,
        version=1,
        created_at=NOON,
        updated_at=NOON,
    )


def _run(run_id: RunId, session_id: SessionId, owner_id: UserId, question: MessageId) -> RunRecord:
    return RunRecord(
        id=run_id,
        session_id=session_id,
        owner_id=owner_id,
        client_message_id="sent",
        user_message_id=question,
        reply_message_id=None,
        state="running",
        request={},
        interrupt_by=None,
        finish_reason=None,
        error=None,
        usage=None,
        timings=None,
        first_seq=1,
        last_seq=None,
        created_at=NOON,
        started_at=NOON,
        finished_at=None,
    )


def _module(owner_id: UserId) -> ModuleRecord:
    return ModuleRecord(
        id=ModuleId(new_id()),
        owner_id=owner_id,
        name="notes",
        description="",
        type="advanced",
        content="",
        script="",
        trigger_pattern=None,
        trigger_depth=1,
        execution_context="IMMEDIATE",
        timeout_ms=None,
        is_active=True,
        requires_ai=False,
        analysis=None,
        refers_to=[],
        version=1,
        created_at=NOON,
        updated_at=NOON,
    )
