"""What it costs to read templates and to build prompts from them."""

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import Figures, compare
from services.prompt.building import Contribution, build
from services.prompt.planning import plan
from services.prompt.template import parse

_PROSE = "You are a friendly guide; be brief, and write to me@example.com if in doubt. "
_MODULES = {f"module{number}": parse(f"Today ${{now}}, as @{{module{number + 1}}} says.") for number in range(5)}
_SAID = {"module5": Contribution(outputs={"mood": "fine"}), "module6": Contribution(text="@nobody ${nothing}")}
_KINDS = {
    "prose": _PROSE,
    "a prompt": _PROSE * 6 + "@module0 ${now} ${module5.mood} ",
    "references": "@module5 ${now} @{module6}\\@",
}


async def run(home: Path, *, quick: bool) -> None:
    """Print how fast templates of 16 KiB are read, and prompts planned and built from them, in CPU time."""
    times, rounds = (5, 1) if quick else (50, 5)
    texts = {kind: (unit * 2000)[: 16 * 1024] for kind, unit in _KINDS.items()}
    # Budgets allow a thousand references; what is measured is the cost of each.
    texts["references"] = texts["references"][: 8 * 1024]
    results = {kind: [_round(text, times) for _ in range(rounds)] for kind, text in texts.items()}
    compare("templates of 16 KiB (references: 8 KiB)", results, "prose")


def _round(text: str, times: int) -> Figures:
    modules = _MODULES | {"module5": parse("Feeling ${mood}."), "module6": parse("")}
    variables = {"now": "2030-01-01 12:00"}
    template = parse(text)

    def prompt() -> object:
        return build(plan(template, (), modules.get), _SAID, variables)

    return {
        "nodes": len(template.nodes),
        "reading [MB/s]": _speed(text, times, lambda: parse(text)),
        "planning and building [MB/s]": _speed(text, times, prompt),
    }


def _speed(text: str, times: int, work: Callable[[], object]) -> float:
    begun = time.process_time()
    for _ in range(times):
        work()
    return len(text) * times / (time.process_time() - begun) / 1e6
