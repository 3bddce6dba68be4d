"""Presets for people who do not want to choose: backbone, size and recipe by how good, how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["QUALITIES", "Quality"]


@dataclass(frozen=True)
class Quality:
    """A preset.

    Attributes
    ----------
    backbone : str
        A registered name.
    image_size : int
        Height and width in pixels.
    recipe : str
        The transfer mode.
    settings : mapping of str to object
        Parameters of the mode.
    """

    backbone: str
    image_size: int
    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)


# All on the one backbone whose weights are installed with the package, so that each works offline.
QUALITIES: dict[str, Quality] = {
    "fast": Quality("EfficientNetLite0", 128, "structure"),
    "good": Quality("EfficientNetLite0", 128, "composite"),
    "best": Quality("EfficientNetLite0", 224, "composite"),
}
