"""What routes ask for, by name. Typed on HTTPConnection where sockets use them too."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Annotated

from fastapi import Depends, Header
from starlette.requests import HTTPConnection, Request

from api.callers import (
    Administrator,
    ChattingCaller,
    ChattingUser,
    CurrentCaller,
    CurrentUser,
    ReadingCaller,
    services_of,
)
from api.connections import SavedConnections
from api.errors import UnsupportedMediaType
from api.settings import Settings
from api.streams import EventStreams
from services.accounts.administration import UserAdministration
from services.accounts.api_keys import ApiKeys
from services.accounts.invitations import Invitations
from services.accounts.profiles import Profiles
from services.accounts.registration import Registration
from services.accounts.sign_ins import SignIns
from services.accounts.tickets import Tickets
from services.audit import AuditLog
from services.chat import ChatService
from services.contexts import ContextService
from services.database import DatabaseInspector
from services.editing import MessageEditor
from services.errors import NoAccounts
from services.exporting import SessionExporter
from services.files.service import FileService
from services.forks import ForkService
from services.health import HealthService
from services.idempotency import Idempotency
from services.images import ImageService
from services.importing import SessionImporter
from services.library import LibraryService
from services.mcp.pool import McpPool
from services.memories import MemoryService
from services.messages import MessageService
from services.modules import ModuleService
from services.personas import PersonaService
from services.prompt.archive import PromptArchive
from services.prompt.lab import PromptLab
from services.providers.registry import Providers
from services.replies import ReplyService
from services.search import MessageSearch
from services.sessions import SessionService
from services.templates import TemplateService
from services.tools.approvals import ApprovalService
from services.tools.toolbox import Toolbox
from services.usage.reports import UsageReports
from websocket.authentication import Door
from websocket.manager import ConnectionManager

__all__ = ["Administrator", "ChattingCaller", "ChattingUser", "CurrentCaller", "CurrentUser", "ReadingCaller"]
"""Routes find all that they ask for here; who asks has a file of its own."""


def _idempotency(connection: HTTPConnection) -> Idempotency:
    return services_of(connection).bookkeeping.idempotency


def _reports(connection: HTTPConnection) -> UsageReports:
    return services_of(connection).bookkeeping.usage


def _inspector(connection: HTTPConnection) -> DatabaseInspector:
    return services_of(connection).bookkeeping.inspector


def _settings(connection: HTTPConnection) -> Settings:
    return services_of(connection).settings


def _registration(connection: HTTPConnection) -> Registration:
    return services_of(connection).accounts.registration


def _sign_ins(connection: HTTPConnection) -> SignIns:
    return services_of(connection).accounts.sign_ins


def _profiles(connection: HTTPConnection) -> Profiles:
    return services_of(connection).accounts.profiles


def _administration(connection: HTTPConnection) -> UserAdministration:
    return services_of(connection).accounts.administration


def _invitations(connection: HTTPConnection) -> Invitations:
    return services_of(connection).accounts.invitations


def _chat(connection: HTTPConnection) -> ChatService:
    return services_of(connection).chat


def _sessions(connection: HTTPConnection) -> SessionService:
    return services_of(connection).sessions


def _messages(connection: HTTPConnection) -> MessageService:
    return services_of(connection).messages


def _editor(connection: HTTPConnection) -> MessageEditor:
    return services_of(connection).editor


def _contexts(connection: HTTPConnection) -> ContextService:
    return services_of(connection).contexts


def _forks(connection: HTTPConnection) -> ForkService:
    return services_of(connection).forks


def _exports(connection: HTTPConnection) -> SessionExporter:
    return services_of(connection).exports


def _imports(connection: HTTPConnection) -> SessionImporter:
    return services_of(connection).imports


def _search(connection: HTTPConnection) -> MessageSearch:
    return services_of(connection).search


def _replies(connection: HTTPConnection) -> ReplyService:
    return services_of(connection).replies


def _personas(connection: HTTPConnection) -> PersonaService:
    return services_of(connection).personas


def _modules(connection: HTTPConnection) -> ModuleService:
    return services_of(connection).modules


def _templates(connection: HTTPConnection) -> TemplateService:
    return services_of(connection).templates


def _lab(connection: HTTPConnection) -> PromptLab:
    return services_of(connection).lab


def _archive(connection: HTTPConnection) -> PromptArchive:
    return services_of(connection).archive


def _memories(connection: HTTPConnection) -> MemoryService:
    return services_of(connection).memories


def _library(connection: HTTPConnection) -> LibraryService:
    return services_of(connection).library


def _images(connection: HTTPConnection) -> ImageService:
    return services_of(connection).images


def _files(connection: HTTPConnection) -> FileService:
    return services_of(connection).files


def _health(connection: HTTPConnection) -> HealthService:
    return services_of(connection).health


def _providers(connection: HTTPConnection) -> Providers:
    return services_of(connection).providers


def _saved_connections(connection: HTTPConnection) -> SavedConnections:
    return services_of(connection).saved_connections


def _tool_servers(connection: HTTPConnection) -> McpPool:
    return services_of(connection).tool_servers


def _sockets(connection: HTTPConnection) -> ConnectionManager:
    return services_of(connection).connections


def _approvals(connection: HTTPConnection) -> ApprovalService:
    return services_of(connection).approvals


def _toolbox(connection: HTTPConnection) -> Toolbox:
    return services_of(connection).toolbox


def _audit(connection: HTTPConnection) -> AuditLog:
    return services_of(connection).audit


def _keys(connection: HTTPConnection) -> ApiKeys:
    return services_of(connection).access.keys


def _tickets(connection: HTTPConnection) -> Tickets:
    return services_of(connection).access.tickets


def _door(connection: HTTPConnection) -> Door:
    return services_of(connection).access.door


def _streams(connection: HTTPConnection) -> EventStreams:
    return services_of(connection).streams


Audit = Annotated[AuditLog, Depends(_audit)]
Inspector = Annotated[DatabaseInspector, Depends(_inspector)]
Reports = Annotated[UsageReports, Depends(_reports)]
Idempotent = Annotated[Idempotency, Depends(_idempotency)]
CurrentSettings = Annotated[Settings, Depends(_settings)]
UserRegistration = Annotated[Registration, Depends(_registration)]
SignInService = Annotated[SignIns, Depends(_sign_ins)]
Users = Annotated[UserAdministration, Depends(_administration)]
Inviting = Annotated[Invitations, Depends(_invitations)]
UserProfiles = Annotated[Profiles, Depends(_profiles)]
KeysOfUsers = Annotated[ApiKeys, Depends(_keys)]
SocketTickets = Annotated[Tickets, Depends(_tickets)]
FrontDoor = Annotated[Door, Depends(_door)]
Sockets = Annotated[ConnectionManager, Depends(_sockets)]
Streams = Annotated[EventStreams, Depends(_streams)]
Chat = Annotated[ChatService, Depends(_chat)]
Approvals = Annotated[ApprovalService, Depends(_approvals)]
Tools = Annotated[Toolbox, Depends(_toolbox)]
Sessions = Annotated[SessionService, Depends(_sessions)]
Messages = Annotated[MessageService, Depends(_messages)]
Editor = Annotated[MessageEditor, Depends(_editor)]
Contexts = Annotated[ContextService, Depends(_contexts)]
Forks = Annotated[ForkService, Depends(_forks)]
SessionExports = Annotated[SessionExporter, Depends(_exports)]
SessionImports = Annotated[SessionImporter, Depends(_imports)]
Search = Annotated[MessageSearch, Depends(_search)]
Replies = Annotated[ReplyService, Depends(_replies)]
Personas = Annotated[PersonaService, Depends(_personas)]
Modules = Annotated[ModuleService, Depends(_modules)]
Templates = Annotated[TemplateService, Depends(_templates)]
Lab = Annotated[PromptLab, Depends(_lab)]
Archive = Annotated[PromptArchive, Depends(_archive)]
Memories = Annotated[MemoryService, Depends(_memories)]
Libraries = Annotated[LibraryService, Depends(_library)]
Images = Annotated[ImageService, Depends(_images)]
Files = Annotated[FileService, Depends(_files)]
Health = Annotated[HealthService, Depends(_health)]
ModelServers = Annotated[Providers, Depends(_providers)]
Connections = Annotated[SavedConnections, Depends(_saved_connections)]
ToolServers = Annotated[McpPool, Depends(_tool_servers)]


async def _within_quota(connection: HTTPConnection, user: CurrentUser) -> None:
    await services_of(connection).bookkeeping.quota.check(user)


WithinQuota = Depends(_within_quota)
"""For routes that ask models on the side: not for whoever has used up the tokens of the day."""


async def _until_sent() -> AsyncGenerator[AsyncExitStack, None]:
    async with AsyncExitStack() as stack:
        yield stack


UntilSent = Annotated[AsyncExitStack, Depends(_until_sent)]
"""What is entered here is left when the response has been sent, or its client has gone."""


def needs_accounts(settings: CurrentSettings) -> None:
    """Say clearly that there are no accounts here, where there are none."""
    if settings.auth_mode == "local":
        raise NoAccounts


async def takes_json(request: Request) -> None:
    """Refuse a body of another kind: `text/plain` is what a foreign page can send without asking."""
    has_body = "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    if has_body and not is_json:
        raise UnsupportedMediaType


async def takes_form(request: Request) -> None:
    """Refuse a body that is no form with files."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedMediaType("Send a form: Content-Type: multipart/form-data.")


def _expected_version(
    if_match: Annotated[
        str | None,
        Header(
            description="The ETag that you have read; the request fails with 412 if it is old.",
            json_schema_extra={"pattern": r'^(\*|"[0-9]{1,18}")$'},
        ),
    ] = None,
) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    version = if_match.strip().removeprefix('"').removesuffix('"')
    # What we never gave out matches nothing.
    return int(version) if version.isascii() and version.isdigit() and len(version) < 19 else -1


ExpectedVersion = Annotated[int | None, Depends(_expected_version)]
