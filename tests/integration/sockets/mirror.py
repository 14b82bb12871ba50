"""What a client knows that only listens: where the active branch ends, and what each reply says."""

from collections.abc import Sequence

from tests.integration.sockets.client import Client, Event


class Mirror:
    """A snapshot, kept up to date by nothing but events."""

    def __init__(self, active: str | None, messages: list[Event]) -> None:
        self.active = active
        self.replies = {one["id"]: one["content"] for one in messages if one["role"] == "assistant"}
        self._parents = {one["id"]: one["parent_id"] for one in messages}
        self._over = {one["run_id"] for one in messages if one["role"] == "assistant"}
        """Runs of whose replies the snapshot has all."""
        self._asked: dict[str, str] = {}
        """What each unfinished run is to answer."""
        self._texts: dict[str, str] = {}
        self._accepted: set[str] = set()

    @classmethod
    async def of(cls, client: Client, session_id: str) -> tuple["Mirror", int]:
        """What is known from REST now, and the position after which events tell the rest."""
        page = (await client.http.get(f"/api/sessions/{session_id}/messages", params={"limit": 100})).json()
        everything = (
            await client.http.get(f"/api/sessions/{session_id}/messages", params={"limit": 100, "all": True})
        ).json()
        active = page["items"][0]["id"] if page["items"] else None
        return cls(active, everything["items"]), page["seq"]

    def hear(self, events: Sequence[Event]) -> None:
        """Take events, in order."""
        for event in events:
            match event["type"]:
                case "message_accepted":
                    # Of a run that is at work already, the words are to steer it: it answers them if it takes them.
                    if event["run_id"] not in self._over:
                        self._asked.setdefault(event["run_id"], event["message_id"])
                    # The second time it only says that what should have steered a run gets one of its own.
                    if event["client_message_id"] not in self._accepted:
                        self.active = event["message_id"]
                    self._accepted.add(event["client_message_id"])
                case "message_taken" if event["run_id"] in self._asked:
                    self._asked[event["run_id"]] = event["message_id"]
                case "text_delta":
                    self._texts[event["run_id"]] = self._texts.get(event["run_id"], "") + event["delta"]
                case "assistant_end":
                    self._end(event)
                case "session_updated":
                    self.active = event.get("active_message_id", self.active)
                case _:
                    pass

    def _end(self, event: Event) -> None:
        # Of a run that had ended before the snapshot nothing is new, except that its end may be what was seen last.
        asked = self._asked.pop(event["run_id"], None)
        if event["message_id"] is None:
            return
        if asked is None:
            asked = self._parents[event["message_id"]]
        else:
            self.replies[event["message_id"]] = self._texts.get(event["run_id"], "")
        # Of several replies to one message the last that was asked for is shown.
        if self.active == asked and asked not in self._asked.values():
            self.active = event["message_id"]
