"""Pictures over REST."""

from typing import Self

from pydantic import Field

from api.schemas.model import Answer
from services.images import Painted


class UploadedImage(Answer):
    """A picture that was kept."""

    image_path: str = Field(description="Give it as `image` of a persona.")
    url: str = Field(description="Where it can be fetched.")

    @classmethod
    def of(cls, painted: Painted) -> Self:
        """What a client sees of it."""
        return cls(image_path=painted.path, url=f"/api/images/{painted.id}")
