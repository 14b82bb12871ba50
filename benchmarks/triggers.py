"""What it costs to find out which of a thousand modules speak."""

import random
import string
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import Figures, compare, percentile
from services.prompt.triggers import Trigger, TriggerSet

_Make = Callable[[], str]


async def run(home: Path, *, quick: bool) -> None:
    """Print what compiling 1,000 triggers takes, and matching them against messages of 2 kB, in CPU time."""
    count, messages, rounds = (100, 20, 1) if quick else (1000, 200, 3)
    dice = random.Random(1)
    words = ["".join(dice.choices(string.ascii_lowercase, k=dice.randint(3, 9))) for _ in range(3000)]
    texts = [" ".join(dice.choices(words, k=400))[:2048] for _ in range(messages)]
    kinds: dict[str, _Make] = {
        "keywords": lambda: "|".join([*dice.choices(words, k=3), " ".join(dice.choices(words, k=2))]),
        "expressions": lambda: rf"/\b{dice.choice(words)}(s|ed|ing)?\b/",
        "with gaps": lambda: f"/{dice.choice(words)}.*{dice.choice(words)}/",
        "no literals": lambda: rf"/\b[a-{dice.choice('fghijk')}]{{3,9}}\d{{1,{dice.randint(1, 5)}}}\b/",
    }
    results = {
        kind: [_round([make() for _ in range(count)], texts) for _ in range(rounds)] for kind, make in kinds.items()
    }
    compare(f"triggers: {count:,} against messages of 2 kB", results, "keywords")


def _round(patterns: list[str], texts: list[str]) -> Figures:
    begun = time.process_time()
    triggers = {str(number): Trigger.compile(pattern) for number, pattern in enumerate(patterns)}
    checked = time.process_time()
    together = TriggerSet(triggers)
    made = time.process_time()
    times: list[float] = []
    for text in texts:
        start = time.process_time()
        together.matching([text])
        times.append(time.process_time() - start)
    return {
        "reading all patterns [ms]": (checked - begun) * 1e3,
        "making the set [ms]": (made - checked) * 1e3,
        "first message [ms]": times[0] * 1e3,
        "a message, median [ms]": percentile(times, 0.5) * 1e3,
        "a message, p95 [ms]": percentile(times, 0.95) * 1e3,
    }
