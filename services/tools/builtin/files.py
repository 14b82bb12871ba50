"""`list_files`, `read_file` and `search_files`: what people have put into the session."""

from db.records import FileRecord
from services.agent.agent import Answer, Tool
from services.agent.types import ToolSpec
from services.errors import NotFound
from services.files.service import FileHit, FileService, NoText
from services.tools.arguments import ArgumentCheck
from services.tools.results import ResultCutter
from services.tools.scene import Offer, Scene, calling, schema

_LISTED = 100
_MOST_CHARACTERS = 100_000
_FARTHEST = 2**31 - 1
_MOST_HITS = 20
_QUERY_CHARACTERS = 1_000

_FILE = {"type": "string", "description": "The file's name, or its id where two have the same name."}


LIST = Offer("list_files", "Lists the files of this conversation.", by_default=True)
READ = Offer("read_file", "Reads the text of a file of this conversation.", by_default=True)
SEARCH = Offer("search_files", "Finds passages in the files of this conversation.", by_default=True)


class FileTools:
    """Lets a model look for itself, where there are files."""

    offers = (LIST, READ, SEARCH)

    def __init__(self, files: FileService, cutter: ResultCutter) -> None:
        self._files = files
        self._cutter = cutter

    async def tools(self, scene: Scene) -> list[Tool]:
        """All three, or none."""
        record = scene.run.record
        if not await self._files.has_any(record.owner_id, record.session_id):
            return []
        return [self._list(scene), self._read(scene), self._search(scene)]

    def _list(self, scene: Scene) -> Tool:
        async def list_files() -> Answer:
            return Answer("\n".join(map(_told, await files_of(self._files, scene))) or "There are no files any more.")

        return Tool(ToolSpec(LIST.name, LIST.description, schema()), calling(list_files))

    def _read(self, scene: Scene) -> Tool:
        async def read(file: str, offset: int = 0) -> Answer:
            return await self._page(scene, file, offset)

        begin = {"type": "integer", "minimum": 0, "maximum": _FARTHEST, "description": "The character to begin at."}
        parameters = schema(("file",), file=_FILE, offset=begin)
        spec = ToolSpec(READ.name, READ.description, parameters)
        return Tool(spec, calling(read), check=ArgumentCheck(parameters))

    def _search(self, scene: Scene) -> Tool:
        record = scene.run.record

        async def search(query: str, limit: int = 5) -> Answer:
            sought = query[:_QUERY_CHARACTERS]
            found = await self._files.search(record.owner_id, record.session_id, sought, limit=limit)
            return Answer("\n\n".join(map(_hit, found)) or "Nothing was found.")

        most = {"type": "integer", "minimum": 1, "maximum": _MOST_HITS, "description": "How many passages at most."}
        words = {"type": "string", "minLength": 1, "description": "Words to look for."}
        parameters = schema(("query",), query=words, limit=most)
        spec = ToolSpec(SEARCH.name, SEARCH.description, parameters)
        return Tool(spec, calling(search), check=ArgumentCheck(parameters))

    async def _page(self, scene: Scene, wanted: str, offset: int) -> Answer:
        record = scene.run.record
        named = [file for file in await files_of(self._files, scene) if wanted in (file.name, str(file.id))]
        if not named:
            return Answer("There is no file of that name.", is_error=True)
        try:
            part = await self._files.read_text(
                record.owner_id, record.session_id, named[0].id, offset=offset, limit=_MOST_CHARACTERS
            )
        except (NotFound, NoText) as error:
            return Answer(error.message, is_error=True)
        if not part.text:
            return Answer(f"The file ends at character {part.file.characters}.")
        piece, end = await self._cutter.piece(part.text, offset=offset)
        if end >= part.file.characters:
            return Answer(piece)
        return Answer(f"{piece}\n\n[Characters {offset} to {end} of {part.file.characters}. Go on with offset={end}.]")


async def files_of(files: FileService, scene: Scene) -> list[FileRecord]:
    """The newest files of the scene's session; none if it is gone."""
    record = scene.run.record
    try:
        found, _ = await files.page(record.owner_id, record.session_id, before=None, limit=_LISTED)
    except NotFound:
        return []
    return found


def _told(file: FileRecord) -> str:
    text = f"{file.characters} characters of text" if file.text_state == "ready" else "no text"
    return f"{file.name} ({file.media_type}, {file.size} bytes, {text}, id {file.id})"


def _hit(hit: FileHit) -> str:
    return f"[{hit.name}, from character {hit.offset}]\n{hit.text}"
