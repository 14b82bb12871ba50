"""docs/observing.md tells of all that there is to see, and of nothing else."""

import re
from pathlib import Path
from typing import Any, get_args

from api.measuring import open_measuring
from services.audit import Action
from services.telemetry.meters import Meters

DOCUMENT = (Path(__file__).parents[3] / "docs" / "observing.md").read_text()


def test_every_action_of_the_audit_log_is_explained_and_no_other() -> None:
    assert re.findall(r"^\| `(\w+\.\w+)` \|", DOCUMENT, re.MULTILINE) == list(get_args(Action))


def test_every_figure_is_explained_with_its_labels_and_no_other() -> None:
    rows = re.findall(r"^\| `(colloquy_\w+)` \|([\w, ]*)\|", DOCUMENT, re.MULTILINE)

    assert {name: labels.strip() for name, labels in rows} == _counted() | _looked_up()


def _counted() -> dict[str, str]:
    """The instruments, and the names of their labels, which nothing public tells as long as nothing was counted."""
    registry: Any = Meters().registry
    named = [one for one in registry._collector_to_names if hasattr(one, "_labelnames")]
    return {one._name + ("_total" if one._type == "counter" else ""): ", ".join(one._labelnames) for one in named}


def _looked_up() -> dict[str, str]:
    """What is looked up when somebody asks: those that are given to `see`, and the label given to `see_each`."""
    source = Path(open_measuring.__code__.co_filename).read_text()
    each = re.findall(r'see_each\(\s*"(colloquy_\w+)",\s*"[^"]*",\s*"(\w+)"', source)
    return dict.fromkeys(re.findall(r'see\(\s*"(colloquy_\w+)"', source), "") | dict(each)
