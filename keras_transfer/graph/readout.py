"""Readout: which block outputs the head reads, and how each is pooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_transfer.errors import InvalidParameterError, InvalidTypeError, UnknownNameError

__all__ = ["AVERAGE", "CONCATENATE", "LAST", "Pooling", "Readout", "as_readout"]

LAST = "last"
AVERAGE = "average"
CONCATENATE = "readout.concatenate"

Pooling = str | tuple[int, int]


@dataclass(frozen=True, init=False)
class Readout:
    """Which block outputs the head reads, and how each is pooled.

    Blocks above the deepest one read are left out of the model.

    Parameters
    ----------
    blocks : str or sequence of str, default="last"
        The blocks whose outputs are read, pooled and concatenated in this order; ``"last"`` is
        whichever block comes last.
    pooling : "average", (rows, columns), or a sequence of these, one for each block
        How a feature map is pooled: over the whole picture, or over each cell of a grid, which
        keeps some of its layout. Outputs without a layout are read as they are.

    Notes
    -----
    On few labels and data far from the source an earlier block with some layout kept is often far
    better than the last layer; intermediate features match fine-tuning at a fraction of its cost
    in Evci et al., "Head2Toe" (2022, arXiv 2201.03529).

    Examples
    --------
    >>> from keras_transfer import Readout
    >>> Readout("block5c", pooling=(2, 2))
    Readout(blocks=('block5c',), pooling=((2, 2),))
    >>> Readout(["block3b", "last"])
    Readout(blocks=('block3b', 'last'), pooling=('average', 'average'))
    """

    blocks: tuple[str, ...]
    pooling: tuple[Pooling, ...]

    def __init__(
        self,
        blocks: str | Sequence[str] = LAST,
        pooling: Pooling | Sequence[Pooling] = AVERAGE,
    ):
        names = (blocks,) if isinstance(blocks, str) else tuple(blocks)
        if not names or not all(isinstance(name, str) for name in names):
            raise InvalidTypeError(
                f"blocks: expected one or more block names. Received: {blocks!r}."
            )
        each: Any = pooling
        if not isinstance(pooling, (list, tuple)) or any(isinstance(n, int) for n in pooling):
            each = (pooling,) * len(names)
        poolings = tuple(tuple(p) if isinstance(p, list) else p for p in each)
        for value in poolings:
            if value != AVERAGE and not _is_grid(value):
                raise InvalidParameterError(
                    f"pooling: expected {AVERAGE!r} or a grid of positive (rows, columns). "
                    f"Received: {value!r}."
                )
        if len(poolings) != len(names):
            raise InvalidParameterError(
                f"pooling: expected one for all blocks or one for each of the {len(names)}. "
                f"Received: {len(poolings)}."
            )
        object.__setattr__(self, "blocks", names)
        object.__setattr__(self, "pooling", poolings)

    @property
    def description(self) -> str:
        """A few words: ``"block5c 2x2 + block6d"``."""
        return " + ".join(
            block if pooling == AVERAGE else f"{block} {pooling[0]}x{pooling[1]}"
            for block, pooling in zip(self.blocks, self.pooling, strict=True)
        )

    def resolve(self, block_names: Sequence[str], where: str) -> Readout:
        """Return it with ``"last"`` replaced, checked against the blocks that exist.

        Raises
        ------
        UnknownNameError
            If a block does not exist.
        """
        names = []
        for name in self.blocks:
            if name == LAST:
                name = block_names[-1]
            if name not in block_names:
                raise UnknownNameError("readout: block", name, block_names, where)
            names.append(name)
        return Readout(names, self.pooling)

    def attach(self, taps: dict[str, Any]) -> Any:
        """Pool and concatenate block outputs.

        Parameters
        ----------
        taps : dict of str to Keras tensor
            Output of each block that is read; names as after `resolve`.

        Returns
        -------
        Keras tensor of shape (batch, n_features)
        """
        import keras

        pooled = [
            _pool(taps[block], pooling, f"readout.{index}_{block}")
            for index, (block, pooling) in enumerate(zip(self.blocks, self.pooling, strict=True))
        ]
        if len(pooled) == 1:
            return pooled[0]
        return keras.layers.Concatenate(name=CONCATENATE)(pooled)

    def feature_names(self, model: Any) -> list[str]:
        """Name the features that a model without a head ends in: block, grid and number.

        Parameters
        ----------
        model : keras.Model
            Built with this readout, as after `resolve`.

        Returns
        -------
        list of str
        """
        joined = [layer for layer in model.layers if layer.name == CONCATENATE]
        parts = joined[0].input if joined else [model.output]
        names = []
        for number, (block, pooling) in enumerate(zip(self.blocks, self.pooling, strict=True)):
            name = block if pooling == AVERAGE else f"{block}_{pooling[0]}x{pooling[1]}"
            if (block, pooling) in list(zip(self.blocks, self.pooling, strict=True))[:number]:
                name = f"{number}_{name}"  # the same, read twice
            names += [f"{name}_{index}" for index in range(parts[number].shape[-1])]
        return names


def as_readout(value: object) -> Readout:
    """Turn ``"last"``, a block's name or a `Readout` into a `Readout`."""
    if isinstance(value, Readout):
        return value
    if isinstance(value, str):
        return Readout(value)
    raise InvalidTypeError(
        f"readout: expected {LAST!r}, a block's name or a Readout. Received: {value!r} "
        f"(type {type(value).__name__})."
    )


def _is_grid(value: object) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value)
    )


def _pool(tensor: Any, pooling: Any, name: str) -> Any:
    import keras

    rank = len(tensor.shape) - 1
    if rank == 1:
        return tensor
    if rank == 2:
        if pooling != AVERAGE:
            raise InvalidParameterError(
                f"pooling: expected {AVERAGE!r} for a sequence of shape {tuple(tensor.shape)}. "
                f"Received: {pooling!r}."
            )
        return keras.layers.GlobalAveragePooling1D(name=f"{name}_average")(tensor)
    if rank != 3:
        raise InvalidParameterError(
            f"readout: expected a block output of 2 to 4 axes. Received: {tuple(tensor.shape)}."
        )
    if pooling == AVERAGE:
        return keras.layers.GlobalAveragePooling2D(name=f"{name}_average")(tensor)
    rows, columns = pooling
    height, width = tensor.shape[1:3]
    if rows > height or columns > width:
        raise InvalidParameterError(
            f"pooling: expected a grid of at most {height} x {width}, the size of the block's "
            f"output. Received: {rows} x {columns}. Choose a smaller grid, an earlier block or a "
            f"larger image_size."
        )
    # Windows of one size that overlap where the grid does not divide the map. Keras 3.15's
    # AdaptiveAveragePooling2D confuses rows and columns where these differ.
    strides = (height // rows, width // columns)
    window = (height - (rows - 1) * strides[0], width - (columns - 1) * strides[1])
    cells = keras.layers.AveragePooling2D(window, strides, name=f"{name}_grid_{rows}x{columns}")
    return keras.layers.Flatten(name=f"{name}_flatten")(cells(tensor))
