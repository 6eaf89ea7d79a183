"""Masks as JSON has them: [height, width, bits], the rows one after the other, packed, compressed, as base64."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

MOST_PIXELS = 2**32  # of one mask


class PackedMask:
    """Annotates a mask (h, w) bool that is packed where its dataclass becomes JSON (`records`)."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core.core_schema import (
            no_info_plain_validator_function,
            plain_serializer_function_ser_schema,
        )

        return no_info_plain_validator_function(
            unpacked, serialization=plain_serializer_function_ser_schema(packed)
        )


def packed(mask: npt.NDArray[np.bool_]) -> list[int | str]:
    bits = zlib.compress(np.packbits(mask).tobytes(), 1)
    return [*mask.shape, base64.b64encode(bits).decode("ascii")]


def unpacked(entry: Any) -> npt.NDArray[np.bool_]:
    """The mask (h, w). Raises ValueError; never unpacks more than the mask may hold."""
    match entry:
        case [int(height), int(width), str(text)] if (
            min(height, width) >= 0 and height * width <= MOST_PIXELS
        ):
            wanted = (height * width + 7) // 8
        case _:
            raise ValueError("it is not a packed mask")
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), wanted + 1)
    except zlib.error as error:
        raise ValueError("the mask is broken") from error
    if len(data) != wanted:
        raise ValueError("the mask has another size")
    flat = np.unpackbits(np.frombuffer(data, np.uint8), count=height * width)
    return flat.view(np.bool_).reshape(height, width)
