"""What composes prompts: the part of the assembly that knows modules, scripts and their stores."""

import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass

from api.setting_groups import SandboxLimits
from db.pool import Database
from db.stores.memories import MemoryStore
from db.stores.messages import MessageStore
from db.stores.modules import ModuleStore
from db.stores.run_traces import RunTraceStore
from db.stores.sessions import SessionStore
from db.stores.turns import TurnStore
from db.stores.usage import UsageStore
from services.casting import CastingOffice
from services.connections.directory import ConnectionDirectory
from services.context.tokens import TokenCounter
from services.hardening import Hardening
from services.prompt.after import AfterReply
from services.prompt.composer import Composer, Turns
from services.prompt.facts import TurnReader
from services.prompt.host import TurnHost
from services.prompt.lab import PromptLab, UnkeptMemories
from services.prompt.on_demand import OnDemand
from services.prompt.shelf import Shelf
from services.prompt.turn import HostFor, ScriptTimes
from services.prompt.view import TurnView
from services.scripts.sandbox import Sandbox
from services.scripts.types import ScriptHost, ScriptLimits
from services.scripts.workers import CannotStart, InterpreterMissing

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prompts:
    """What makes prompts, what is done after replies for the prompts to come, and where prompts are tried out."""

    composer: Composer
    after: AfterReply
    on_demand: OnDemand
    lab: PromptLab
    sandbox: Sandbox


async def open_prompts(
    database: Database,
    connections: ConnectionDirectory,
    tokens: TokenCounter,
    casting: CastingOffice,
    allowed: SandboxLimits,
    stack: AsyncExitStack,
) -> Prompts:
    """All on one sandbox, whose hardening is known and told now and which starts with the first script.

    `stack` ends it.
    """
    sandbox = await stack.enter_async_context(
        Sandbox(count_tokens=tokens.count, max_workers=allowed.workers, patience=allowed.wait_ms / 1e3)
    )
    await _tell_hardening(sandbox)
    store, shelf = TurnStore(database), Shelf(ModuleStore(database))
    reader = TurnReader(store, shelf)
    limits = ScriptLimits(
        cpu_seconds=allowed.cpu_seconds,
        memory_bytes=allowed.memory_mib * 1024 * 1024,
        recursion=allowed.recursion,
        host_calls=allowed.host_calls,
    )
    times = ScriptTimes(allowed.timeout_ms, allowed.ai_timeout_ms)
    hosts, unkept = (_hosts(database, connections, kind(database)) for kind in (MemoryStore, UnkeptMemories))
    turns = Turns(sandbox, hosts, shelf, limits=limits, times=times)
    after = AfterReply(
        casting,
        reader=reader,
        turns=turns,
        store=store,
        messages=MessageStore(database),
        traces=RunTraceStore(database),
        tokens=tokens,
    )
    trials = Turns(sandbox.thorough(), unkept, shelf, limits=limits, times=times)
    usage = UsageStore(database)
    lab = PromptLab(casting, reader=reader, turns=trials, tokens=tokens, host_for=unkept, usage=usage)
    traces = RunTraceStore(database)
    composer = Composer(reader=reader, turns=turns, store=store, traces=traces, tokens=tokens)
    on_demand = OnDemand(reader=reader, turns=turns, store=store, modules=ModuleStore(database), traces=traces)
    return Prompts(composer, after, on_demand, lab, sandbox)


async def _tell_hardening(sandbox: Sandbox) -> None:
    try:
        level = await sandbox.harden()
    except (InterpreterMissing, CannotStart) as reason:
        _log.error("modules with scripts will fail: %s", reason)
        return
    _log.log(logging.WARNING if level is Hardening.NONE else logging.INFO, "scripts: %s", level.meaning)


def _hosts(database: Database, connections: ConnectionDirectory, memories: MemoryStore) -> HostFor:
    messages, sessions = MessageStore(database), SessionStore(database)

    def host_for(view: TurnView) -> ScriptHost:
        return TurnHost(view, messages=messages, memories=memories, sessions=sessions, connections=connections)

    return host_for
