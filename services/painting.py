"""Painting pictures anew: of what anybody sends, only the pixels are kept."""

import struct
import zlib
from io import BytesIO
from typing import Any

from PIL import Image, ImageOps

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
# What Pillow's readers raise over bytes that only look like a picture.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    ArithmeticError,
    struct.error,
    zlib.error,
)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class NotAPicture(Exception):
    """These bytes are no picture that can be used."""


class TooManyPixels(Exception):
    """Unpacked, the picture would be too large."""


def painted(data: bytes, most_pixels: int, longest_side: int | None = None) -> "tuple[Image.Image, str]":
    """The picture on a fresh canvas, upright, and the name of its format; of several frames the first.

    With `longest_side` it is made as small as that. Raises `NotAPicture`, `TooManyPixels`.
    """
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            # Known from the header, before anything is unpacked.
            if image.width * image.height > most_pixels:
                raise TooManyPixels
            return _repainted(image, longest_side), image.format or ""
    except _BOMBS as error:
        raise TooManyPixels from error
    except _BROKEN as error:
        raise NotAPicture from error


def _repainted(image: "Image.Image", longest_side: int | None) -> "Image.Image":
    is_transparent = image.has_transparency_data
    upright: Any = ImageOps.exif_transpose(image)
    plain: Image.Image = upright.convert("RGBA" if is_transparent else "RGB")
    if longest_side is not None:
        plain.thumbnail((longest_side, longest_side))
    # A new canvas has no comments, profiles or positions that the picture may have had.
    canvas = Image.new(plain.mode, plain.size)
    canvas.paste(plain)
    return canvas
