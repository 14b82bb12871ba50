"""What composes prompts: the part of the assembly that knows modules, scripts and their stores."""

from contextlib import AsyncExitStack

from db.pool import Database
from db.stores.memories import MemoryStore
from db.stores.messages import MessageStore
from db.stores.module_results import ModuleResultStore
from db.stores.modules import ModuleStore
from db.stores.run_traces import RunTraceStore
from db.stores.sessions import SessionStore
from db.stores.variables import VariableStore
from services.context.tokens import TokenCounter
from services.prompt.composer import Composer
from services.prompt.host import TurnHost
from services.prompt.turn import ScriptTimes
from services.prompt.view import TurnView
from services.providers.registry import Providers
from services.scripts.sandbox import Sandbox
from services.scripts.types import ScriptHost, ScriptLimits


async def open_composer(
    database: Database, providers: Providers, tokens: TokenCounter, stack: AsyncExitStack
) -> Composer:
    """The composer with a sandbox of its own, which starts with the first script; `stack` ends it."""
    sandbox = await stack.enter_async_context(Sandbox(count_tokens=tokens.count))
    messages, memories, sessions = MessageStore(database), MemoryStore(database), SessionStore(database)

    def host_for(view: TurnView) -> ScriptHost:
        return TurnHost(view, messages=messages, memories=memories, sessions=sessions, providers=providers)

    return Composer(
        modules=ModuleStore(database),
        results=ModuleResultStore(database),
        variables=VariableStore(database),
        traces=RunTraceStore(database),
        messages=messages,
        tokens=tokens,
        sandbox=sandbox,
        host_for=host_for,
        limits=ScriptLimits(),
        times=ScriptTimes(),
    )
