"""The conversation: a line in, a reply out, until one side leaves."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from terminal.client import Away, ChatClient, Differs, Event, Happening
from terminal.errors import CannotChat
from terminal.lines import Lines
from terminal.screen import Screen
from terminal.service import Service

HELP = """\
/new      begin a new session
/history  show what was said
/quit     leave (Ctrl-D and Ctrl-C do too)
/help     show this
Ctrl-C stops a running reply; a second one leaves."""

_SHOWN_AT_START = 20
_ANSWERS = {
    "yes": (True, False),
    "y": (True, False),
    "no": (False, False),
    "n": (False, False),
    "always": (True, True),
    "never": (False, True),
}
"""Whether to approve a call, and whether to remember that."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to begin a session, and what every message asks for in a session that was begun elsewhere."""

    for_session: Mapping[str, str] = field(default_factory=dict[str, str])
    for_message: Mapping[str, str] = field(default_factory=dict[str, str])


class Talk:
    """One person, or one script, at one terminal."""

    def __init__(self, service: Service, lines: Lines, screen: Screen, wishes: Wishes, *, is_prompting: bool) -> None:
        self._service = service
        self._lines = lines
        self._screen = screen
        self._wishes = wishes
        self._is_prompting = is_prompting
        self._chat: ChatClient | None = None
        self._is_reading = False
        self._is_offline = False
        self._next: asyncio.Future[Happening] | None = None
        self._asked: list[str] = []
        """Calls of tools that wait for the person's word, oldest first."""
        self._answer: asyncio.Task[str | None] | None = None
        self.failures = 0
        """Messages that got no reply, or not all of it, because something failed."""

    async def run(self, session_id: str | None) -> None:
        """Talk until the lines end or the person leaves. Raises `CannotChat`; a second Ctrl-C cancels it."""
        fields: Mapping[str, str] = self._wishes.for_message if session_id else {}
        async with self._ctrl_c():
            following: str | None = session_id or await self._begin()
            while following is not None:
                following = await self._talk_in(following, fields)
                fields = {}

    async def _begin(self) -> str:
        return await self._service.new_session(self._wishes.for_session)

    async def _talk_in(self, session_id: str, fields: Mapping[str, str]) -> str | None:
        """Talk in one session; the session to go on with, or None to leave."""
        history = await self._service.history(session_id, limit=_SHOWN_AT_START)
        if self._is_prompting:
            self._screen.notice(f"session {session_id}; /help lists the commands")
            self._screen.messages(history.messages)
        async with ChatClient(
            self._service.address, session_id, history.position, fields=fields, headers=self._service.headers
        ) as chat:
            self._chat = chat
            await self._follow(chat, session_id)
            while (line := await self._next_line()) is not None:
                match line.strip():
                    case "":
                        continue
                    case "/quit":
                        return None
                    case "/new":
                        if following := await self._try_to_begin():
                            return following
                    case "/history":
                        await self._show_history(session_id)
                    case "/help":
                        self._screen.line(HELP)
                    case _:
                        await chat.send(line)
                        await self._follow(chat, session_id)
        if self._is_prompting:
            self._screen.line("")  # what comes next in this terminal begins on a line of its own
        return None

    async def _next_line(self) -> str | None:
        if self._is_prompting:
            self._screen.prompt()
        self._is_reading = True
        try:
            return await self._lines.next()
        finally:
            self._is_reading = False

    # --- the reply -------------------------------------------------------------------------------------------------

    async def _follow(self, chat: ChatClient, session_id: str) -> None:
        """Show what happens until the reply has ended, and take the person's word on calls of tools meanwhile."""
        try:
            while chat.is_waiting:
                await self._take(chat, session_id, await self._happening(chat))
        finally:
            for left in (self._next, self._answer):
                if left is not None:
                    left.cancel()
            self._next = self._answer = None
            self._asked.clear()

    async def _take(self, chat: ChatClient, session_id: str, happening: Happening | None) -> None:
        match happening:
            case None:
                await self._decide(chat)
            case Away():
                self._say_that_it_is_away()
            case Differs(run_id=run_id):
                if chat.is_ours(run_id):
                    await self._show_stored(session_id, run_id)
            case event:
                self._show(chat, event)

    async def _happening(self, chat: ChatClient) -> Happening | None:
        """What happens next; None if the person has answered a question first."""
        if not self._asked and self._next is None:
            return await anext(chat)
        self._next = self._next or asyncio.ensure_future(anext(chat))
        awaited: set[asyncio.Future[Any]] = {self._next}
        if self._asked and self._answer is None:
            self._answer = asyncio.create_task(self._lines.next())
        if self._answer:
            awaited.add(self._answer)
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if not self._next.done():
            return None
        happening, self._next = self._next.result(), None
        return happening

    async def _decide(self, chat: ChatClient) -> None:
        """Hand on the answer to the oldest question."""
        assert self._answer is not None
        said, self._answer = (self._answer.result() or "no").strip().lower(), None
        if said in _ANSWERS:
            approve, remember = _ANSWERS[said]
            await chat.decide(self._asked.pop(0), approve=approve, remember=remember)
        else:
            self._screen.notice("yes, no, always or never?")

    def _forget(self, tool_call_id: str) -> None:
        """The call does not wait any more."""
        if tool_call_id in self._asked:
            self._asked.remove(tool_call_id)
        if not self._asked and self._answer is not None:
            self._answer.cancel()
            self._answer = None

    def _show(self, chat: ChatClient, event: Event) -> None:
        match event:
            case {"type": "session_start"}:
                self._say_that_it_is_back()
            case {"type": "server_shutdown"}:
                self._say_that_it_is_away()
            case {"type": "resync"}:
                self._screen.notice("what happened meanwhile cannot be told in order; /history shows what is stored")
            case {"type": "error", "code": "nothing_running" | "not_waiting", **rest} if rest.get("run_id") is None:
                pass  # it had ended by itself just before it was stopped, or somebody else had decided
            case {"run_id": str(run_id)} if not chat.is_ours(run_id):
                if event["type"] == "message_accepted":
                    self._screen.notice("somebody else wrote in this session")
            case {"type": "approval_required", "tool_call_id": str(id)}:
                self._screen.show(event)
                self._asked.append(id)
            case _:
                if event["type"] in ("tool_start", "tool_done"):
                    self._forget(event["tool_call_id"])
                self._count(event)
                self._screen.show(event)

    def _count(self, event: Event) -> None:
        match event:
            case {"type": "error", "code": str(code)} if code != "shutting_down":
                self.failures += 1
            case {"type": "interrupted", "by": str(by)} if by != "user":
                self.failures += 1
            case _:
                pass

    async def _show_stored(self, session_id: str, run_id: str) -> None:
        try:
            text = await self._service.reply(session_id, run_id)
        except CannotChat as problem:
            self._screen.notice(f"the reply is not shown whole, and could not be read again: {problem}")
            return
        self._screen.notice("the reply is not shown whole; this is what is stored:")
        self._screen.line("(nothing)" if text is None else text)

    def _say_that_it_is_away(self) -> None:
        if not self._is_offline:
            self._screen.notice("the connection is lost; trying to get it back (Ctrl-C twice leaves)")
        self._is_offline = True

    def _say_that_it_is_back(self) -> None:
        if self._is_offline:
            self._screen.notice("connected again")
        self._is_offline = False

    # --- commands --------------------------------------------------------------------------------------------------

    async def _try_to_begin(self) -> str | None:
        try:
            return await self._begin()
        except CannotChat as problem:
            self._screen.notice(str(problem))
            return None

    async def _show_history(self, session_id: str) -> None:
        try:
            history = await self._service.history(session_id)
        except CannotChat as problem:
            self._screen.notice(str(problem))
            return
        if not history.is_whole:
            self._screen.notice("older messages are not shown")
        self._screen.messages(history.messages)

    # --- Ctrl-C ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _ctrl_c(self) -> AsyncGenerator[None, None]:
        """Inside, Ctrl-C ends the lines while one is awaited, stops a reply that runs, and otherwise leaves."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        stops: set[asyncio.Task[None]] = set()

        def act() -> None:
            if self._is_reading:
                self._lines.end()
            elif self._chat and self._chat.can_stop:
                stops.add(asyncio.create_task(self._chat.interrupt()))
                if self._is_offline:
                    self._screen.notice("the reply will be asked to stop as soon as the service is back")
            else:
                task.cancel()

        loop.add_signal_handler(signal.SIGINT, act)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            await asyncio.gather(*stops)
