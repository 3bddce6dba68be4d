"""What the data sets check of their parameters."""

from __future__ import annotations

import numpy as np

from keras_transfer.errors import InvalidParameterError

__all__ = ["whole_number"]


def whole_number(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return ``value`` as an int within its bounds."""
    if (
        isinstance(value, (int, np.integer))
        and not isinstance(value, bool)
        and least <= value
        and (most is None or value <= most)
    ):
        return int(value)
    bounds = f"from {least} to {most}" if most is not None else f"of {least} or more"
    raise InvalidParameterError(
        f"{name} cannot be used. Expected: an int {bounds}. "
        f"Received: {value!r} ({type(value).__name__})."
    )
