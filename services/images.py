"""Pictures of personas: whatever is uploaded is painted anew, so that nothing but its pixels is kept or served."""

import asyncio
import hashlib
import os
import shutil
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from uuid import UUID, uuid4

from PIL import Image

from db.ids import UserId
from services.errors import CallerError, Conflict, InvalidRequest, NotFound
from services.painting import NotAPicture, TooManyPixels, painted

_LONGEST_SIDE = 512


class ImageTooLarge(CallerError):
    """The picture is larger than this service takes."""

    code = "body_too_large"


class UnusableImage(InvalidRequest):
    """This is not a picture that can be used: send a PNG, JPEG, WebP or GIF."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """How much of pictures is too much."""

    bytes: int
    pixels: int
    per_user: int


@dataclass(frozen=True, slots=True)
class Painted:
    """A picture as WebP without loss. The same pixels have the same `id`, whatever they came in."""

    id: UUID
    webp: bytes

    @property
    def path(self) -> str:
        """What personas call it."""
        return f"images/{self.id}.webp"


class ImageService:
    """Keeps the pictures of an owner, each under an id in a directory of the owner's own."""

    def __init__(self, directory: Path, limits: ImageLimits) -> None:
        self._directory = directory
        self._limits = limits
        # One at a time: a picture at the limit takes some 200 MB while it is painted.
        self._painting = asyncio.Semaphore(1)

    async def store(self, owner_id: UserId, data: bytes) -> Painted:
        """Paint the picture and keep it. Raises `ImageTooLarge`, `UnusableImage`, and `Conflict` if there are too many.

        At most 512 pixels a side are kept; of several frames the first.
        """
        picture = await self.painted(data)
        await self.keep(owner_id, picture)
        return picture

    async def keep(self, owner_id: UserId, painted: Painted) -> None:
        """Keep a painted picture. Raises `Conflict` if there are too many."""
        await asyncio.to_thread(self._keep, owner_id, painted)

    async def painted(self, data: bytes) -> Painted:
        """The picture painted anew, not kept. Raises `ImageTooLarge`, `UnusableImage`."""
        if len(data) > self._limits.bytes:
            raise ImageTooLarge(f"A picture has at most {self._limits.bytes} bytes.", limit=self._limits.bytes)
        async with self._painting:
            return await asyncio.to_thread(_paint, data, self._limits.pixels)

    async def file(self, owner_id: UserId, image_id: UUID) -> Path:
        """Where the owner's picture is kept. Raises `NotFound`."""
        file = self._place(owner_id, image_id)
        if not await asyncio.to_thread(file.is_file):
            raise NotFound("There is no picture with that id.")
        return file

    async def read(self, owner_id: UserId, path: str) -> bytes | None:
        """The picture that personas call `path`; None if it is not there."""
        image_id = id_of(path)
        if image_id is None:
            return None
        try:
            return await asyncio.to_thread(self._place(owner_id, image_id).read_bytes)
        except FileNotFoundError:
            return None

    async def check(self, owner_id: UserId, path: str) -> None:
        """Raises `NotFound` if the owner has no picture that is called `path`."""
        image_id = id_of(path)
        if image_id is None or not await asyncio.to_thread(self._place(owner_id, image_id).is_file):
            raise NotFound("There is no such picture: upload it first and give its image_path.", field="image")

    async def forget(self, owner_id: UserId) -> None:
        """Delete all pictures of an owner who is gone."""
        await asyncio.to_thread(shutil.rmtree, self._directory / str(owner_id), ignore_errors=True)

    def _place(self, owner_id: UserId, image_id: UUID) -> Path:
        return self._directory / str(owner_id) / f"{image_id}.webp"

    def _keep(self, owner_id: UserId, painted: Painted) -> None:
        place = self._place(owner_id, painted.id)
        if place.exists():
            return
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if sum(1 for _ in place.parent.glob("*.webp")) >= self._limits.per_user:
            raise Conflict(f"You have {self._limits.per_user} pictures; there is no room for more.")
        # Whole or not at all: under another name until all of it is on the disk.
        draft = place.with_name(f"{uuid4()}.part")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(painted.webp)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(place)
        finally:
            draft.unlink(missing_ok=True)


def id_of(path: str) -> UUID | None:
    """The id in what personas call a picture; None if no picture is called that."""
    name = path.removeprefix("images/").removesuffix(".webp")
    try:
        image_id = UUID(name)
    except ValueError:
        return None
    return image_id if path == f"images/{image_id}.webp" else None


def _paint(data: bytes, most_pixels: int) -> Painted:
    try:
        canvas, _ = painted(data, most_pixels, _LONGEST_SIDE)
        return Painted(_digest(canvas), _encoded(canvas))
    except TooManyPixels as error:
        raise UnusableImage(f"A picture has at most {most_pixels} pixels.", field="file", limit=most_pixels) from error
    except NotAPicture as error:
        raise UnusableImage(field="file") from error


def _digest(canvas: "Image.Image") -> UUID:
    digest = hashlib.sha256(f"{canvas.mode} {canvas.size}".encode())
    digest.update(canvas.tobytes())
    return UUID(bytes=digest.digest()[:16], version=5)


def _encoded(canvas: "Image.Image") -> bytes:
    encoded = BytesIO()
    canvas.save(encoded, "WEBP", lossless=True, exact=True, quality=50)
    return encoded.getvalue()
