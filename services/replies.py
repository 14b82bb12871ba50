"""Following one run to its end, for callers that have no socket."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson

from db.ids import MessageId, RunId, SessionId, UserId
from db.records import MessageRecord, RunRecord
from db.stores.messages import MessageStore, Siblings
from db.stores.runs import RunStore
from services.chat import ChatService
from services.errors import NotFound, ShuttingDown, Unavailable
from services.hours import OpenHours
from services.inbox import Send
from services.questions import Regenerate
from services.runs.feed import Frame, JournalGone, PastIsGone, Reader


@dataclass(frozen=True, slots=True)
class Reply:
    """A finished run with what was asked and, if it got that far, answered."""

    run: RunRecord
    user_message: MessageRecord
    message: MessageRecord | None
    siblings: Mapping[MessageId, Siblings]


class RunFrames:
    """The events of one run, in order, to its last."""

    def __init__(self, run: RunRecord, reader: Reader | None) -> None:
        self._run = run
        self._reader = reader
        self._answering = run.handed_to or run.id
        self._is_sure = run.handed_to is None
        """Whether it is known which run answers: the one that the message was handed to, or its own."""
        self._reply_is_over = False
        self._has_ended = False

    async def next(self) -> Sequence[Frame]:
        """The run's next events, at least one; none once the run's last event was given.

        Raises `NotFound` if the session is deleted meanwhile.
        """
        while self._reader is not None and not self._has_ended:
            frames = [frame for frame in await self._read(self._reader) if self._is_about_it(frame)]
            for position, frame in enumerate(frames, 1):
                if self._is_last(frame):
                    return frames[:position]
            if frames:
                return frames
        return ()

    async def reply_end(self) -> None:
        """Return when the reply is over; what comes after it is not waited for."""
        while frames := await self.next():
            if self._is_sure and any(frame.type == "assistant_end" for frame in frames):
                return

    async def _read(self, reader: Reader) -> Sequence[Frame]:
        try:
            return await reader.next()
        except JournalGone as error:
            raise NotFound("The session was deleted.") from error
        except PastIsGone as error:
            raise Unavailable("The reply's events were dropped after their time.") from error

    def _is_about_it(self, frame: Frame) -> bool:
        if not self._is_sure and (frame.run_id == self._run.id or self._is_taking(frame)):
            self._answering, self._is_sure = frame.run_id or self._run.id, True
        return frame.run_id == self._answering

    def _is_taking(self, frame: Frame) -> bool:
        taken = frame.type == "message_taken" and orjson.loads(frame.text)["message_id"]
        return taken == str(self._run.user_message_id)

    def _is_last(self, frame: Frame) -> bool:
        """A run ends with its post-response work, done or interrupted, or with a reply that did not succeed."""
        match frame.type:
            case _ if not self._is_sure or frame.run_id != self._answering:
                return False
            case "assistant_end":
                self._reply_is_over = True
                self._has_ended = orjson.loads(frame.text)["finish_reason"] in ("interrupted", "error")
            case "interrupted":
                self._has_ended = self._reply_is_over
            case "post_response_complete":
                self._has_ended = True
            case _:
                pass
        return self._has_ended


class ReplyService:
    """Sends messages and waits for what becomes of them."""

    def __init__(self, chat: ChatService, runs: RunStore, messages: MessageStore) -> None:
        self._chat = chat
        self._runs = runs
        self._messages = messages
        self._hours = OpenHours()

    def shut_down(self) -> None:
        """Let nobody wait any longer: a reply that has not ended by now goes on elsewhere, or later."""
        self._hours.close()

    async def ask(self, owner_id: UserId, session_id: SessionId, send: Send | Regenerate) -> Reply:
        """Send a message, or ask once more, and wait for the end of its reply, however it ends.

        A retry with the same `client_message_id` gets the same reply. Raises what `ChatService.send` raises, and
        `Unavailable` if the service goes down first.
        """
        async with self.follow(owner_id, session_id, send) as (run, frames):
            try:
                async with self._hours.until_closed():
                    await frames.reply_end()
            except ShuttingDown as error:
                # Not that itself: the message was taken.
                raise Unavailable(
                    "The service is going down before the reply has ended: read it later.",
                    run_id=str(run.id),
                    retry_after=1,
                ) from error
        return await self._reply(owner_id, session_id, run.id)

    @asynccontextmanager
    async def follow(
        self, owner_id: UserId, session_id: SessionId, send: Send | Regenerate
    ) -> AsyncGenerator[tuple[RunRecord, RunFrames], None]:
        """Send a message and read its run's events from the first. Raises what `ChatService.send` raises.

        Leaving does not stop the run. There are no events of a run that ended so long ago that they are gone.
        """
        run = (await self._chat.send(owner_id, session_id, send)).run
        async with self._chat.attach(owner_id, session_id, after=run.first_seq - 1) as attachment:
            is_gone = attachment.resync is not None or attachment.position >= run.first_seq
            yield run, RunFrames(run, None if is_gone else attachment.reader)

    async def _reply(self, owner_id: UserId, session_id: SessionId, run_id: RunId) -> Reply:
        run = await self._run(owner_id, session_id, run_id)
        if run.finish_reason == "steered" and run.reply_message_id is not None:
            reply = await self._messages.get(run.reply_message_id, owner_id)
            run = await self._run(owner_id, session_id, reply.run_id) if reply and reply.run_id else run
        said = {message.id: message for message in await self._runs.messages_of(run)}
        siblings = await self._messages.siblings(session_id, list(said))
        question = said.get(run.user_message_id)
        if question is None or siblings.keys() < said.keys():
            raise NotFound("The session was deleted.")
        return Reply(run, question, _answer(said, run.reply_message_id), siblings)

    async def _run(self, owner_id: UserId, session_id: SessionId, run_id: RunId) -> RunRecord:
        run = await self._runs.get(run_id, session_id, owner_id)
        if run is None:
            raise NotFound("There is no run with that id in this session.")
        return run


def _answer(said: dict[MessageId, MessageRecord], message_id: MessageId | None) -> MessageRecord | None:
    return None if message_id is None else said.get(message_id)
