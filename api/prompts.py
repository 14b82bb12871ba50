"""What composes prompts: the part of the assembly that knows modules, scripts and their stores."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from db.pool import Database
from db.stores.memories import MemoryStore
from db.stores.messages import MessageStore
from db.stores.module_results import ModuleResultStore
from db.stores.modules import ModuleStore
from db.stores.run_traces import RunTraceStore
from db.stores.sessions import SessionStore
from db.stores.variables import VariableStore
from services.casting import CastingOffice
from services.context.tokens import TokenCounter
from services.prompt.after import AfterReply
from services.prompt.composer import Composer
from services.prompt.host import TurnHost
from services.prompt.turn import ScriptTimes
from services.prompt.view import TurnView
from services.providers.registry import Providers
from services.scripts.sandbox import Sandbox
from services.scripts.types import ScriptHost, ScriptLimits


@dataclass(frozen=True, slots=True)
class Prompts:
    """What makes prompts, and what is done after replies for the prompts to come."""

    composer: Composer
    after: AfterReply


async def open_prompts(
    database: Database, providers: Providers, tokens: TokenCounter, casting: CastingOffice, stack: AsyncExitStack
) -> Prompts:
    """Both on one sandbox, which starts with the first script; `stack` ends it."""
    sandbox = await stack.enter_async_context(Sandbox(count_tokens=tokens.count))
    messages, memories, sessions = MessageStore(database), MemoryStore(database), SessionStore(database)

    def host_for(view: TurnView) -> ScriptHost:
        return TurnHost(view, messages=messages, memories=memories, sessions=sessions, providers=providers)

    results, variables, traces = ModuleResultStore(database), VariableStore(database), RunTraceStore(database)
    composer = Composer(
        modules=ModuleStore(database),
        results=results,
        variables=variables,
        traces=traces,
        messages=messages,
        tokens=tokens,
        sandbox=sandbox,
        host_for=host_for,
        limits=ScriptLimits(),
        times=ScriptTimes(),
    )
    after = AfterReply(composer, casting, messages=messages, results=results, variables=variables, traces=traces)
    return Prompts(composer, after)
