"""Tables: what was compared, in which unit, and the ratios."""

import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.processes import ROOT

Figures = dict[str, float]
"""What one round measured: names with their unit, such as `CPU per delta [us]`."""


async def in_turns(rounds: int, measures: Mapping[str, Callable[[], Awaitable[Figures]]]) -> dict[str, list[Figures]]:
    """Measure each of them once per round, so that whatever else the machine does meets all of them alike."""
    results: dict[str, list[Figures]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            results[name].append(await measure())
    return results


def compare(title: str, results: Mapping[str, Sequence[Figures]], reference: str) -> None:
    """Print medians of the rounds; beside them the medians of each round's ratio and difference to the reference."""
    rounds = len(results[reference])
    others = [name for name in results if name != reference]
    print(f"\n{title} (medians of {rounds} {'round' if rounds == 1 else 'rounds'})")
    rows = [["", *results, *(f"{name} : {reference}" for name in others), f"{others[0]} - {reference}"]]
    for figure in results[reference][0]:
        absolute = [_number(median(one[figure] for one in results[name])) for name in results]
        ratios = [_ratio(results[name], results[reference], figure) for name in others]
        rows.append([figure, *absolute, *ratios, _difference(results[others[0]], results[reference], figure)])
    _print_aligned(rows)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the others do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def machine() -> None:
    """Print what the absolute figures depend on."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "websockets", "openai", "asyncpg"))
    print(f"Colloquy {commit or 'without git'} on {_processor()}, {os.cpu_count()} CPUs, Linux {platform.release()}")
    print(f"Python {platform.python_version()}, {libraries}; fdatasync of 8 KiB takes {_sync_microseconds():.0f} us")
    print(f"Load before the start: {os.getloadavg()[0]:.2f}. Ratios compare; absolute figures are this machine's.")


def _ratio(ones: Sequence[Figures], references: Sequence[Figures], figure: str) -> str:
    ratios = [one[figure] / ref[figure] for one, ref in zip(ones, references, strict=True) if ref[figure]]
    return f"{median(ratios):.2f}" if ratios else "-"


def _difference(ones: Sequence[Figures], references: Sequence[Figures], figure: str) -> str:
    return _number(median(one[figure] - ref[figure] for one, ref in zip(ones, references, strict=True)))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _print_aligned(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join(["", first.ljust(widths[0]), *cells]), flush=True)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a processor")


def _sync_microseconds() -> float:
    """What the disk asks for a promise: the floor under every durable commit."""
    taken: list[float] = []
    with tempfile.TemporaryFile(dir="/var/tmp") as file:
        for _ in range(50):
            os.pwrite(file.fileno(), bytes(8192), 0)
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - begun) * 1e6)
    return median(taken)
