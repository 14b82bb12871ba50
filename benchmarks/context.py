"""What it costs to fit a conversation into a window, and to count tokens: computed alone, without a database."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.report import Figures, compare
from db.ids import MessageId, new_id
from db.records import ContextItemRecord, ContextMessage
from services.context.items import groups_of
from services.context.tokens import RANKS, count_tokens, read_encoding
from services.context.window import fit

_WORDS = "Ten messages of this length are more than the model of this benchmark can take. " * 4
_TOKENS = 70
_WINDOW = 8_192
_TEXTS = {
    "English": _WORDS,
    "code": "for (const item of items) { total += item.price * (1 - rate); }\n" * 5,
    "Chinese": "\u4f60\u597d\uff0c\u8fd9\u662f\u4e00\u6bb5\u7528\u6765\u8ba1\u7b97\u7684\u6587\u5b57\u3002" * 15,
}


async def run(home: Path, *, quick: bool) -> None:
    """Print what a window takes of conversations of 10 to 10,000 messages that were loaded, and how fast we count."""
    times, rounds = (3, 1) if quick else (20, 5)
    lengths = (10, 100, 10_000)
    histories = {f"{length:,} messages": _history(length) for length in lengths}
    results = {name: [_assembly(history, times) for _ in range(rounds)] for name, history in histories.items()}
    compare("assembling a window of what was loaded, in CPU time", results, next(iter(results)))

    encoding = read_encoding(RANKS)
    texts = {name: (text * 2_000)[: 256 * 1024] for name, text in _TEXTS.items()}
    speeds = {
        name: [
            {"counting [MB/s]": _speed(text, times, lambda text=text: count_tokens(encoding, text))}
            for _ in range(rounds)
        ]
        for name, text in texts.items()
    }
    compare("counting tokens of 256 Ki characters", speeds, "English")


def _history(length: int) -> Sequence[ContextMessage]:
    """Questions and replies, of which every other called a tool."""
    call = {"id": "1", "name": "look", "arguments": "{}"}
    items = (
        ContextItemRecord({"role": "assistant", "text": "", "calls": [call]}, 20),
        ContextItemRecord({"role": "tool", "call_id": "1", "name": "look", "text": _WORDS}, _TOKENS),
    )
    return [
        ContextMessage(
            MessageId(new_id()),
            ("user", "assistant")[number % 2],
            _WORDS,
            _TOKENS,
            3 * _TOKENS if number % 4 == 1 else None,
            "stop",
            None,
            items if number % 4 == 1 else (),
        )
        for number in range(length)
    ]


def _assembly(history: Sequence[ContextMessage], times: int) -> Figures:
    def window() -> object:
        return fit(500, groups_of(history), limit=_WINDOW, reserve=1024).messages

    begun = time.process_time()
    for _ in range(times):
        window()
    spent = (time.process_time() - begun) / times
    return {"window [us]": spent * 1e6, "per message [us]": spent / len(history) * 1e6}


def _speed(text: str, times: int, work: Callable[[], object]) -> float:
    begun = time.process_time()
    for _ in range(times):
        work()
    return len(text.encode()) * times / (time.process_time() - begun) / 1e6
