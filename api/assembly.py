"""All that stands behind the routes: what is made when the service starts, and in which order."""

import asyncio
import math
from contextlib import AsyncExitStack
from dataclasses import dataclass

from api.access import Access, make_access, watch_rights
from api.accounts import Accounts, open_accounts
from api.bookkeeping import Bookkeeping, open_bookkeeping
from api.connections import SavedConnections, open_connections, provider_settings
from api.keys import secret_keys
from api.measuring import open_measuring
from api.prompts import open_prompts
from api.settings import Settings
from api.streams import EventStreams
from api.tool_servers import make_pool
from api.tooling import make_tooling
from db.ids import ReplicaId, new_id
from db.migrate import read_migrations
from db.pool import Database
from db.stores.accepting import AcceptStore
from db.stores.audit import AuditStore
from db.stores.calibrations import CalibrationStore
from db.stores.context import ContextStore
from db.stores.editing import EditingStore
from db.stores.events import EventStore
from db.stores.file_texts import FileTextStore
from db.stores.files import FileStore
from db.stores.first_run import FirstRunStore
from db.stores.forks import ForkStore
from db.stores.leases import LeaseStore
from db.stores.library import LibraryStore
from db.stores.memories import MemoryStore
from db.stores.messages import MessageStore
from db.stores.modules import ModuleStore
from db.stores.personas import PersonaStore
from db.stores.post_responses import PostResponseStore
from db.stores.replicas import ReplicaStore
from db.stores.run_traces import RunTraceStore
from db.stores.runs import RunStore
from db.stores.schema import SchemaStore
from db.stores.search import SearchStore
from db.stores.sessions import SessionStore
from db.stores.steering import SteeringStore
from db.stores.tool_calls import ToolCallStore
from db.stores.transfer import TransferStore
from db.stores.users import UserStore
from services.audit import AuditLog
from services.casting import CastingOffice
from services.chat import ChatLimits, ChatService
from services.context.tokens import TokenCounter
from services.contexts import ContextService
from services.conversation.calibrations import Calibrations
from services.conversation.compactor import Compactor, SummarySettings
from services.conversation.opening import ContextLimits, Conversations
from services.conversation.roomkeeper import Roomkeeper
from services.documents.reader import DocumentReader, ReaderLimits
from services.editing import MessageEditor
from services.exporting import SessionExporter
from services.files.attachments import Attachments
from services.files.intake import FileLimits, Intake
from services.files.readings import Readings
from services.files.service import FileService
from services.files.sweeper import Sweeper
from services.files.vault import Vault
from services.first_run.welcome import Welcome
from services.forks import ForkService
from services.health import HealthService
from services.images import ImageLimits, ImageService
from services.importing import SessionImporter
from services.inbox import Inbox, InboxLimits
from services.large_work import LargeWork
from services.library import LibraryService
from services.mcp.pool import McpPool
from services.memories import MemoryService
from services.messages import MessageService
from services.modules import ModuleService
from services.personas import PersonaService
from services.prompt.archive import PromptArchive
from services.prompt.lab import PromptLab
from services.providers.registry import Providers
from services.questions import Questions
from services.replies import ReplyService
from services.runs.afterwork import Afterwork, Responder
from services.runs.engine import RunEngine
from services.runs.feed import Feeds
from services.runs.journal import Journal
from services.scripts.checker import ScriptChecker
from services.search import MessageSearch
from services.sessions import SessionService
from services.telemetry.meters import Meters
from services.templates import TemplateService
from services.titles import Titles, TitleSettings
from services.tools.approvals import ApprovalService
from services.tools.decisions import Decisions
from services.tools.toolbox import Toolbox
from websocket.manager import ConnectionManager, SocketLimits


@dataclass(frozen=True, slots=True)
class Services:
    """All that routes are given."""

    settings: Settings
    audit: AuditLog
    large_work: LargeWork
    accounts: Accounts
    chat: ChatService
    sessions: SessionService
    approvals: ApprovalService
    toolbox: Toolbox
    messages: MessageService
    editor: MessageEditor
    contexts: ContextService
    search: MessageSearch
    forks: ForkService
    exports: SessionExporter
    imports: SessionImporter
    personas: PersonaService
    modules: ModuleService
    templates: TemplateService
    lab: PromptLab
    archive: PromptArchive
    memories: MemoryService
    images: ImageService
    files: FileService
    library: LibraryService
    replies: ReplyService
    health: HealthService
    providers: Providers
    saved_connections: SavedConnections
    tool_servers: McpPool
    engine: RunEngine
    afterwork: Afterwork
    connections: ConnectionManager
    streams: EventStreams
    bookkeeping: Bookkeeping
    access: Access


async def open_services(
    settings: Settings,
    database_url: str,
    stack: AsyncExitStack,
    meters: Meters | None = None,
    *,
    responder: Responder | None = None,
) -> Services:
    """Everything that routes are given, in the order in which it depends on each other; `stack` closes it.

    `responder` does what is to be done after replies, in place of the modules that ask for it.
    """
    meters = meters or Meters()
    database = await Database.connect(
        database_url,
        size=settings.limits.pool_size,
        durable=settings.journal.durable,
        waited=meters.database_wait.observe,
    )
    stack.push_async_callback(database.close)
    secrets = secret_keys(settings)
    audit = AuditLog(AuditStore(database), meters.audit, retention_days=settings.audit_days)
    await stack.enter_async_context(audit.running())
    access = make_access(settings, database, secrets, audit)
    images = ImageService(settings.data_dir / "images", _image_limits(settings))
    welcome = Welcome(FirstRunStore(database))
    accounts = await open_accounts(settings, database, secrets, access, audit, welcome, images, stack)
    providers = Providers(provider_settings(settings))
    stack.push_async_callback(providers.aclose)
    tokens = TokenCounter()
    await tokens.load()
    await providers.look_for_ollama()
    stack.push_async_callback(_cancel, asyncio.create_task(providers.warm()))

    saved = await open_connections(settings, database, providers, secrets, audit, stack)

    pool = make_pool(settings)
    await stack.enter_async_context(pool.running())

    events, sessions = EventStore(database), SessionStore(database)
    runs = RunStore(database, lease_seconds=settings.timeouts.lease)
    personas, messages = PersonaStore(database), MessageStore(database)
    modules = ModuleStore(database)
    templates = TemplateService(modules)
    module_service = ModuleService(modules, await stack.enter_async_context(ScriptChecker()), audit)
    persona_service = PersonaService(personas, modules, templates, images, saved.directory, audit)
    feeds = Feeds(events)
    journal = Journal(
        events,
        feeds,
        meters.journal,
        lease_seconds=settings.timeouts.lease,
        pending_characters=settings.journal.pending_bytes,
    )
    files = await _open_files(settings, database, tokens, audit, stack)
    casting = CastingOffice(sessions, personas, UserStore(database), saved.directory)
    prompts = await open_prompts(database, saved.directory, tokens, casting, settings.sandbox, stack)
    context, calibrations = ContextStore(database), Calibrations(CalibrationStore(database))
    compactor = Compactor(context, tokens, providers, journal, _summary_settings(settings))
    replica_id = ReplicaId(new_id())
    afterwork = Afterwork(
        responder=responder or prompts.after,
        jobs=[
            Titles(sessions, messages, providers, journal, _title_settings(settings)),
            Roomkeeper(casting, compactor, compact_at=settings.context.compact_at),
        ],
        store=PostResponseStore(database, lease_seconds=settings.timeouts.lease),
        events=events,
        journal=journal,
        meter=meters.runs,
        replica_id=replica_id,
        work_seconds=settings.timeouts.run,
    )
    decisions = Decisions()
    engine = RunEngine(
        database=database,
        runs=runs,
        leases=LeaseStore(database, lease_seconds=settings.timeouts.lease),
        events=events,
        replicas=ReplicaStore(database),
        journal=journal,
        feeds=feeds,
        afterwork=afterwork,
        decisions=decisions,
        meter=meters.runs,
        replica_id=replica_id,
        lease_seconds=settings.timeouts.lease,
        retention_seconds=settings.journal.retention_hours * 3600,
        reply_bytes=settings.limits.reply_bytes,
        heard=access.heard,
    )
    bookkeeping = await open_bookkeeping(settings, database, replica_id, stack)
    attachments = Attachments(files, tokens, tokens_each=settings.context.file_tokens)
    conversations = Conversations(
        context,
        SteeringStore(database),
        tokens,
        compactor,
        calibrations,
        _context_limits(settings),
        attachments,
        bookkeeping.quota,
    )
    tooling = make_tooling(settings, database, pool, prompts.on_demand, conversations, tokens, decisions, files)
    inbox = Inbox(
        questions=Questions(messages=messages, runs=runs, personas=personas, connections=saved.directory),
        attachments=attachments,
        personas=personas,
        accepting=AcceptStore(database, lease_seconds=settings.timeouts.lease),
        runs=runs,
        journal=journal,
        engine=engine,
        connections=saved.directory,
        tokens=tokens,
        limits=_inbox_limits(settings),
        quota=bookkeeping.quota,
    )
    chat = ChatService(
        inbox=inbox,
        casting=casting,
        composer=prompts.composer,
        toolbox=tooling.toolbox,
        books=tooling.books,
        conversations=conversations,
        runs=runs,
        events=events,
        feeds=feeds,
        engine=engine,
        afterwork=afterwork,
        tokens=tokens,
        meter=meters.models,
        limits=_chat_limits(settings),
        epoch=await events.epoch(new_id()),
    )
    # The embedded database belongs to this process; any other may have further replicas at work on it.
    await stack.enter_async_context(engine.running(chat, is_alone=settings.database_url is None))
    await watch_rights(settings, access, engine, afterwork, stack)
    session_service = SessionService(sessions, personas, tokens, chat, journal, saved.directory, files, pool, audit)
    approvals = ApprovalService(ToolCallStore(database), session_service, decisions)
    sockets = ConnectionManager(chat, approvals, access.rights, _socket_limits(settings))
    await open_measuring(
        meters,
        stack,
        database=database,
        journal=journal,
        feeds=feeds,
        engine=engine,
        sandbox=prompts.sandbox,
        sockets=sockets,
    )
    return Services(
        settings=settings,
        large_work=LargeWork(),
        audit=audit,
        accounts=accounts,
        chat=chat,
        sessions=session_service,
        approvals=approvals,
        toolbox=tooling.toolbox,
        messages=MessageService(messages, chat),
        editor=MessageEditor(
            EditingStore(database), messages, tokens, journal, audit, message_bytes=settings.limits.message_bytes
        ),
        contexts=ContextService(
            sessions=sessions,
            runs=runs,
            store=context,
            casting=casting,
            compactor=compactor,
            calibrations=calibrations,
            limits=_context_limits(settings),
        ),
        forks=ForkService(ForkStore(database), sessions, files),
        exports=SessionExporter(
            TransferStore(database), messages, files, audit, inline_bytes=settings.limits.import_bytes // 4
        ),
        imports=SessionImporter(
            store=TransferStore(database),
            sessions=sessions,
            modules=modules,
            forks=ForkStore(database),
            files=files,
            tokens=tokens,
            connections=saved.directory,
            audit=audit,
        ),
        search=MessageSearch(SearchStore(database), sessions),
        personas=persona_service,
        modules=module_service,
        templates=templates,
        lab=prompts.lab,
        archive=PromptArchive(
            sessions=sessions, runs=runs, traces=RunTraceStore(database), modules=modules, personas=personas
        ),
        memories=MemoryService(MemoryStore(database), sessions, audit),
        images=images,
        files=files,
        library=LibraryService(LibraryStore(database), module_service, persona_service, images, saved.directory, audit),
        replies=ReplyService(chat, runs, messages),
        health=HealthService(
            SchemaStore(database), engine, providers, pool, prompts.sandbox, newest_migration=len(read_migrations())
        ),
        providers=providers,
        saved_connections=saved,
        tool_servers=pool,
        engine=engine,
        afterwork=afterwork,
        bookkeeping=bookkeeping,
        connections=sockets,
        streams=EventStreams(access.rights, stall_seconds=settings.timeouts.stall),
        access=access,
    )


async def _open_files(
    settings: Settings, database: Database, tokens: TokenCounter, audit: AuditLog, stack: AsyncExitStack
) -> FileService:
    store, texts = FileStore(database), FileTextStore(database)
    vault = Vault(settings.data_dir / "files" / str(await store.vault(new_id())))
    reader = await stack.enter_async_context(DocumentReader(_reader_limits(settings)))
    readings = Readings(texts, vault, reader, tokens, seconds=settings.timeouts.reading)
    await stack.enter_async_context(readings.running())
    await stack.enter_async_context(Sweeper(store, vault).running())
    return FileService(store, texts, vault, Intake(store, vault, reader, _file_limits(settings)), readings, audit)


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


def _inbox_limits(settings: Settings) -> InboxLimits:
    return InboxLimits(
        message_bytes=settings.limits.message_bytes,
        runs_per_user=settings.limits.runs_per_user,
        queued_per_session=settings.limits.queued_per_session,
    )


def _chat_limits(settings: Settings) -> ChatLimits:
    return ChatLimits(
        run_seconds=settings.timeouts.run,
        max_turns=settings.limits.max_turns,
        calls_at_once=settings.limits.tool_calls_at_once,
        calls_per_turn=settings.limits.tool_calls_per_turn,
        calls_per_run=settings.limits.tool_calls_per_run,
    )


def _title_settings(settings: Settings) -> TitleSettings:
    return TitleSettings(settings.titles.enabled, settings.titles.connection, settings.titles.model)


def _context_limits(settings: Settings) -> ContextLimits:
    context = settings.context
    return ContextLimits(context.default_window, context.reply_tokens, context.compact_at)


def _summary_settings(settings: Settings) -> SummarySettings:
    context = settings.context
    return SummarySettings(context.summary_connection, context.summary_model, settings.timeouts.summary)


def _image_limits(settings: Settings) -> ImageLimits:
    return ImageLimits(
        bytes=settings.limits.image_bytes,
        pixels=settings.limits.image_pixels,
        per_user=settings.limits.images_per_user,
    )


def _file_limits(settings: Settings) -> FileLimits:
    limits = settings.limits
    return FileLimits(limits.file_bytes, limits.files_per_session, limits.file_bytes_per_user)


def _reader_limits(settings: Settings) -> ReaderLimits:
    limits, seconds = settings.limits, settings.timeouts.reading
    return ReaderLimits(
        memory_bytes=limits.reading_memory_mib * 2**20,
        cpu_seconds=math.ceil(seconds * 0.7),
        wall_seconds=seconds,
        characters=limits.file_characters,
        unpacked_bytes=limits.file_unpacked_bytes,
        pixels=limits.image_pixels,
        picture_bytes=limits.file_bytes,
        at_once=limits.reading_at_once,
    )


def _socket_limits(settings: Settings) -> SocketLimits:
    return SocketLimits(
        connections_per_user=settings.limits.connections_per_user,
        frames_per_minute=settings.limits.frames_per_minute,
        backlog_characters=settings.limits.backlog_bytes,
    )
