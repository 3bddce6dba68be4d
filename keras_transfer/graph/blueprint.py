"""Blueprint: all that a model is made of, before any of it is built."""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass

from keras_transfer._version import __version__
from keras_transfer.backbones.backbone import Backbone
from keras_transfer.graph.assembly import Assembly
from keras_transfer.graph.heads import Head
from keras_transfer.graph.readout import Readout

__all__ = ["Blueprint"]


@dataclass(frozen=True)
class Blueprint:
    """All that a model is made of: a value that holds no Keras object.

    Attributes
    ----------
    backbone : Backbone
    head : Head or None
        None: the model ends in the features that a head would read.
    input_shape : tuple of int
        Of one input.
    readout : Readout
    seed : int
        Of the random weights.
    """

    backbone: Backbone
    head: Head | None
    input_shape: tuple[int, ...]
    readout: Readout
    seed: int

    def assemble(self) -> Assembly:
        """Load the backbone and put the graph together.

        To be called with the process's random states set aside.
        """
        return Assembly(
            self.backbone,
            self.head,
            input_shape=self.input_shape,
            readout=self.readout,
            seed=self.seed,
        )

    def identity(self) -> str | None:
        """Return what tells all but the head without building it; None where nothing does.

        Returns
        -------
        str or None
            Hexadecimal. Equal identities stand for equal networks; equal networks can have several.
        """
        source = self.backbone.source.identity()
        if source is None:
            return None
        told = (
            source,
            self.seed if self.backbone.weights is None else None,
            self.input_shape,
            self.readout,
            self.backbone.preprocessing,
            self.backbone.blocks,
            self.backbone.name,  # stands in messages
            self.head is None,
            __version__,
            *(importlib.metadata.version(name) for name in ("keras", "tensorflow")),
        )
        return hashlib.blake2b(repr(told).encode(), digest_size=20).hexdigest()
