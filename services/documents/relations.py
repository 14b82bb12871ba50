"""How the parts of an Office document refer to each other."""

import posixpath

from services.documents.archive import Package


class Relations:
    """The targets of one part, by their ids."""

    def __init__(self, package: Package, part: str) -> None:
        """The relations of `part`; of the whole document for an empty name. Raises `Unreadable`."""
        folder, name = posixpath.split(part)
        self._folder = folder
        self._targets: dict[str, tuple[str, str]] = {}
        place = posixpath.join(folder, "_rels", f"{name}.rels")
        if place in package:
            package.parse(place, start=self._take)

    def target(self, relation_id: str) -> str | None:
        """The part that the id leads to."""
        found = self._targets.get(relation_id)
        return found and found[1]

    def of_kind(self, kind: str) -> list[str]:
        """The parts of that kind, the last word of the relation's type."""
        return [part for of, part in self._targets.values() if of == kind]

    def _take(self, element: str, attributes: dict[str, str]) -> None:
        if element != "Relationship" or attributes.get("TargetMode") == "External":
            return
        target = attributes.get("Target", "")
        part = posixpath.normpath(posixpath.join("/", self._folder, target)).lstrip("/")
        kind = attributes.get("Type", "").rpartition("/")[2]
        self._targets[attributes.get("Id", "")] = (kind, part)
