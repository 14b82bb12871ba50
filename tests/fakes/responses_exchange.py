"""OpenAI's Responses protocol as the fake speaks it."""

from typing import Any

from tests.fakes.script import CallPart, Fault, Finish, Refusal, Status, Step, Text, Thinking, Tokens
from tests.fakes.server import Exchange, Recorded
from tests.fakes.sse import event, refusal_body


class ResponsesExchange(Exchange):
    """One answer: items are added when their first piece comes and done when the turn ends."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, request: Recorded) -> None:
        super().__init__(request)
        self._number = 0
        self._items: dict[object, dict[str, Any]] = {}
        self._usage: Tokens | None = None

    def begin(self) -> bytes:
        return self._event("response.created", response=self._response("in_progress"))

    def say(self, step: Step) -> bytes:
        match step:
            case Text(text):
                added, at = self._at("message", {"type": "message", "role": "assistant", "content": []})
                return added + self._event("response.output_text.delta", **at, content_index=0, delta=text)
            case Refusal(text):
                added, at = self._at("message", {"type": "message", "role": "assistant", "content": []})
                return added + self._event("response.refusal.delta", **at, content_index=0, delta=text)
            case Thinking(text):
                added, at = self._at("reasoning", {"type": "reasoning", "summary": [], "encrypted_content": "sealed"})
                return added + self._event("response.reasoning_summary_text.delta", **at, summary_index=0, delta=text)
            case CallPart():
                return self._call(step)
            case Tokens():
                self._usage = step
                return b""
            case _:
                raise TypeError(step)

    def fault(self, fault: Fault) -> bytes:
        return self._event("error", code=fault.code, message=fault.message, param=None)

    def finish(self, finish: Finish) -> bytes:
        done = b"".join(
            self._event("response.output_item.done", output_index=index, item=item)
            for index, item in enumerate(self._items.values())
        )
        match finish.reason:
            case "length":
                response = self._response("incomplete") | {"incomplete_details": {"reason": "max_output_tokens"}}
                return done + self._event("response.incomplete", response=response)
            case "content_filter":
                response = self._response("incomplete") | {"incomplete_details": {"reason": "content_filter"}}
                return done + self._event("response.incomplete", response=response)
            case "failed":
                error = {"code": "server_error", "message": "the model fell over"}
                return done + self._event("response.failed", response=self._response("failed") | {"error": error})
            case _:
                return done + self._event("response.completed", response=self._response("completed"))

    def refuse(self, status: Status) -> Any:
        return refusal_body(status)

    def _call(self, part: CallPart) -> bytes:
        item = {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": ""}
        added, at = self._at(("call", part.index), item)
        known = self._items["call", part.index]
        known["arguments"] += part.arguments
        known["name"] = known["name"] or part.name
        known["call_id"] = known["call_id"] or part.id
        if not part.arguments:
            return added
        return added + self._event("response.function_call_arguments.delta", **at, delta=part.arguments)

    def _at(self, key: object, item: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """Where the next piece of the item belongs, and the event that adds the item if it is new."""
        added = b""
        if key not in self._items:
            index = len(self._items)
            self._items[key] = {"id": f"item_{index}", **item}
            added = self._event("response.output_item.added", output_index=index, item=dict(self._items[key]))
        index = list(self._items).index(key)
        return added, {"item_id": f"item_{index}", "output_index": index}

    def _event(self, kind: str, **data: Any) -> bytes:
        self._number += 1
        return event({"type": kind, "sequence_number": self._number, **data}, name=kind)

    def _response(self, status: str) -> dict[str, Any]:
        usage = self._usage and {
            "input_tokens": self._usage.input,
            "output_tokens": self._usage.output,
            "total_tokens": self._usage.input + self._usage.output,
            "output_tokens_details": {"reasoning_tokens": self._usage.thinking},
        }
        model = self.request.body.get("model", "")
        return {"id": "resp_fake", "object": "response", "model": model, "status": status, "usage": usage}
