"""Sending over REST, stopping, and reading what happens."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse
from starlette.responses import StreamingResponse

from api.dependencies import (
    Archive,
    Chat,
    ChattingCaller,
    ChattingUser,
    CurrentCaller,
    CurrentUser,
    Replies,
    Sessions,
    Streams,
    UntilSent,
    takes_json,
)
from api.routes.responses import Responses, problems
from api.routing import MessageKey, StrictRoute
from api.schemas.pages import Before, Limit, cursor_of, link_next
from api.schemas.runs import (
    InterruptAnswer,
    InterruptRequest,
    MessageSend,
    RegenerateRequest,
    RenderedPrompt,
    ReplyAnswer,
    Run,
    RunPage,
    RunSummary,
)
from api.streams import resync_event
from db.ids import RunId, SessionId
from services.accounts.caller import Caller
from services.inbox import Send
from services.questions import Regenerate

router = APIRouter(
    prefix="/api/sessions/{session_id}", tags=["runs"], route_class=StrictRoute, dependencies=[Depends(takes_json)]
)

_EVENTS = "Frames as on the session's socket, one JSON object in each event; the event's id is the frame's `seq`."
_EVENT_STREAM = {"text/event-stream": {"schema": {"$ref": "#/components/schemas/ServerFrame"}}}
_REPLY: Responses = {200: {"description": "The finished reply, or its events.", "content": _EVENT_STREAM}}
_STREAM: Responses = {200: {"description": _EVENTS, "content": _EVENT_STREAM}}


@router.post(
    "/messages",
    operation_id="sendMessage",
    response_model=ReplyAnswer,
    responses=_REPLY | problems(404, 409, 429, changes=True),
)
async def send_message(
    session_id: UUID,
    body: MessageSend,
    key: MessageKey,
    request: Request,
    caller: ChattingCaller,
    replies: Replies,
    streams: Streams,
    until_sent: UntilSent,
) -> ReplyAnswer | EventSourceResponse:
    """Send a message and get the reply when it has ended, or its events with `Accept: text/event-stream`.

    Going away does not stop the reply.
    """
    return await _answer(
        request, replies, streams, until_sent, caller, SessionId(session_id), body.to_send(caller, key)
    )


@router.post(
    "/regenerate",
    operation_id="regenerateReply",
    response_model=ReplyAnswer,
    responses=_REPLY | problems(404, 409, 429, changes=True),
)
async def regenerate_reply(
    session_id: UUID,
    body: RegenerateRequest,
    key: MessageKey,
    request: Request,
    caller: ChattingCaller,
    replies: Replies,
    streams: Streams,
    until_sent: UntilSent,
) -> ReplyAnswer | EventSourceResponse:
    """Get another reply beside an old one, which stays; otherwise as `sendMessage`."""
    return await _answer(
        request, replies, streams, until_sent, caller, SessionId(session_id), body.to_regenerate(caller, key)
    )


@router.post("/interrupt", status_code=202, operation_id="interruptRun", responses=problems(404, 409, changes=True))
async def interrupt_run(
    session_id: UUID, user: ChattingUser, sessions: Sessions, body: InterruptRequest | None = None
) -> InterruptAnswer:
    """Stop a run."""
    run_id = body and body.run_id and RunId(body.run_id)
    return InterruptAnswer(run_id=await sessions.interrupt(user, SessionId(session_id), run_id))


@router.get("/events", operation_id="streamEvents", response_class=StreamingResponse, responses=_STREAM | problems(404))
async def stream_events(
    session_id: UUID,
    caller: CurrentCaller,
    chat: Chat,
    streams: Streams,
    until_sent: UntilSent,
    after: Annotated[int | None, Query(ge=0, lt=2**63, description="Begin after this position.")] = None,
    epoch: UUID | None = None,
    last_event_id: Annotated[int | None, Header(ge=0, lt=2**63, description="Goes before `after`.")] = None,
) -> Response:
    """Events of a session from a position on, as they happen; without one, from the beginning of the active run."""
    position = after if last_event_id is None else last_event_id
    attached = await until_sent.enter_async_context(
        chat.attach(caller.user_id, SessionId(session_id), after=position, epoch=epoch)
    )
    if attached.resync is None:
        return streams.open(caller, attached.reader.next)
    return streams.open(caller, attached.reader.next, resync_event(attached.resync, attached.position, chat.epoch))


@router.get("/runs", operation_id="listRuns", responses=problems(404))
async def list_runs(
    session_id: UUID,
    request: Request,
    response: Response,
    user: CurrentUser,
    archive: Archive,
    before: Before = None,
    limit: Limit = 50,
) -> RunPage:
    """What was done in a session, newest first."""
    found, following = await archive.runs(user, SessionId(session_id), before=before and RunId(before), limit=limit)
    link_next(request, response, cursor_of(following))
    return RunPage(items=[RunSummary.summarized(run) for run in found], next_cursor=cursor_of(following))


@router.get("/runs/{run_id}", operation_id="getRun", responses=problems(404))
async def get_run(session_id: UUID, run_id: UUID, user: CurrentUser, archive: Archive) -> Run:
    """What is known of a run, with the prompt that the model was given and how it came about."""
    return Run.of(*await archive.run(user, SessionId(session_id), RunId(run_id)))


@router.post("/runs/{run_id}/render", operation_id="renderRun", responses=problems(404, changes=True))
async def render_run(session_id: UUID, run_id: UUID, user: CurrentUser, archive: Archive) -> RenderedPrompt:
    """Make the run's prompt again, of today's templates and of what its scripts said then; say what has changed."""
    return RenderedPrompt.of(await archive.render(user, SessionId(session_id), RunId(run_id)))


async def _answer(
    request: Request,
    replies: Replies,
    streams: Streams,
    until_sent: UntilSent,
    caller: Caller,
    session_id: SessionId,
    send: Send | Regenerate,
) -> ReplyAnswer | EventSourceResponse:
    if not _wants_events(request):
        return ReplyAnswer.of(await replies.ask(caller.user_id, session_id, send))
    _, frames = await until_sent.enter_async_context(replies.follow(caller.user_id, session_id, send))
    return streams.open(caller, frames.next)


def _wants_events(request: Request) -> bool:
    wanted = request.headers.get("accept", "").lower().split(",")
    return any(media_range.partition(";")[0].strip() == "text/event-stream" for media_range in wanted)
