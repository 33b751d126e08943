"""Pictures to PNG files: packed with little effort, as they are many and soon purged."""

from __future__ import annotations

import io
from typing import Any, Final

from PIL import Image

_EFFORT: Final = 2  # a quarter of the default's time for a tenth more bytes


def packed(picture: Image.Image, **options: Any) -> bytes:  # noqa: ANN401 - as `Image.save` has them
    """Return the file's content; `options` are those of the format."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=_EFFORT, **options)
    return file.getvalue()
