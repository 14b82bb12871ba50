"""Pictures for people and, smaller, for models."""

from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from services.documents.words import Unreadable
from services.painting import NotAPicture, TooManyPixels, painted

VIEW_SIDE = 2048
"""The longest side that a model looks at: larger ones would be made as small as that by its server."""

_VIEW_BYTES = 4_194_304
_MODELS_KNOW = ("image/png", "image/jpeg")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture painted anew. `view` is what a model is shown instead, a PNG or JPEG, if that is not the same."""

    media_type: str
    width: int
    height: int
    data: bytes
    view_type: str
    view: bytes | None


def repaint(data: bytes, *, most_pixels: int, most_bytes: int) -> Picture:
    """The picture without anything but its pixels. Raises `Unreadable`."""
    try:
        canvas, format = painted(data, most_pixels)
    except TooManyPixels as error:
        raise Unreadable(f"A picture has at most {most_pixels} pixels.") from error
    except NotAPicture as error:
        raise Unreadable("It is not a picture that can be used: send a PNG, JPEG, WebP or GIF.") from error
    media_type, written = _written(canvas, format)
    if len(written) > most_bytes:
        raise Unreadable(f"Painted anew, the picture has more than {most_bytes} bytes.")
    if max(canvas.size) <= VIEW_SIDE and len(written) <= _VIEW_BYTES and media_type in _MODELS_KNOW:
        return Picture(media_type, canvas.width, canvas.height, written, media_type, None)
    size = canvas.size
    view_type, view = _view(canvas)
    return Picture(media_type, *size, written, view_type, view)


def _written(canvas: "Image.Image", format: str) -> tuple[str, bytes]:
    match format:
        case "JPEG":
            return "image/jpeg", _encoded(canvas, "JPEG", quality=92)
        case "WEBP":
            return "image/webp", _encoded(canvas, "WEBP", quality=92)
        case _:
            return "image/png", _encoded(canvas, "PNG")


def _view(canvas: "Image.Image") -> tuple[str, bytes]:
    canvas.thumbnail((VIEW_SIDE, VIEW_SIDE))
    if canvas.mode == "RGBA":
        png = _encoded(canvas, "PNG")
        if len(png) <= _VIEW_BYTES:
            return "image/png", png
        white = Image.new("RGB", canvas.size, "white")
        white.paste(canvas, mask=canvas.getchannel("A"))
        canvas = white
    return "image/jpeg", _encoded(canvas, "JPEG", quality=88)


def _encoded(canvas: "Image.Image", format: str, **options: int) -> bytes:
    written = BytesIO()
    canvas.save(written, format, **options)
    return written.getvalue()
