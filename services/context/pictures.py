"""How many tokens a picture costs. Pure.

Each provider has a rule of its own, and which one will answer is not known when a message is stored, nor the same for
the next reply. So a picture costs the most of what the known rules say: the window is never exceeded, and what a
provider reports corrects the rest.
"""

import math

_LARGEST = 2048
"""Pictures are shown at most so large (`services/documents/pictures.py`)."""


def picture_tokens(width: int, height: int) -> int:
    """What a picture of that size costs at most."""
    width, height = _within(width, height, _LARGEST)
    return max(_tiles(width, height), _patches(width, height), _pixels(width, height, 784), _pixels(width, height, 750))


def _tiles(width: int, height: int) -> int:
    """GPT-4o and its kin: the shorter side at 768, then tiles of 512
    (platform.openai.com/docs/guides/images-vision, "GPT-4o")."""
    scale = min(1.0, 768 / min(width, height))
    across, down = (math.ceil(side * scale / 512) for side in (width, height))
    return 85 + 170 * across * down


def _patches(width: int, height: int) -> int:
    """GPT-4.1-nano, the dearest that counts in patches of 32, of which at most 1536 are made (same place)."""
    patches = min(1536, math.ceil(width / 32) * math.ceil(height / 32))
    return math.ceil(patches * 2.46)


def _pixels(width: int, height: int, each: int) -> int:
    """Models that cost by area: Qwen-VL 28 by 28 pixels a token (784), Claude 750."""
    return math.ceil(width * height / each)


def _within(width: int, height: int, most: int) -> tuple[int, int]:
    scale = min(1.0, most / max(width, height, 1))
    return max(1, round(width * scale)), max(1, round(height * scale))
