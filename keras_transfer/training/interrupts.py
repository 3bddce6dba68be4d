"""Interrupts: a Ctrl-C is kept until training is where it can stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_transfer.training.compiled import CompiledNetwork
from keras_transfer.training.inference import Inference

__all__ = ["Interrupts", "StoppableInference"]


class Interrupts:
    """Keeps a Ctrl-C until training is where it can stop: within a batch.

    A KeyboardInterrupt at any line of TensorFlow's can leave that unusable: while a step is traced,
    it may come out as another error, and every later call run in a graph that is half built.

    Parameters
    ----------
    notify : callable, optional
        Called when the first one comes, inside the signal's handler.

    Attributes
    ----------
    came : bool
        Whether one came.
    is_clean : bool
        Whether the KeyboardInterrupt, if there was one, is from `check`.
    is_forced : bool
        Whether a second one came, which is raised at once.
    """

    def __init__(self, notify: Callable[[], None] = lambda: None):
        self.came = self.is_clean = self.is_forced = False
        self._notify = notify

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Take Ctrl-C inside the context; the second one raises KeyboardInterrupt at once.

        Where another handler than Python's own is in place, or outside the main thread, which none
        reaches, nothing is changed.
        """
        own = signal.default_int_handler
        if (
            threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGINT) is not own
        ):
            yield
            return
        signal.signal(signal.SIGINT, self._take)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, own)

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C came."""
        if self.came:
            self.is_clean = True
            raise KeyboardInterrupt

    def _take(self, number: int, frame: Any) -> None:
        if self.came:
            self.is_clean, self.is_forced = False, True
            signal.default_int_handler(number, frame)
        self.came = True
        self._notify()


class StoppableInference(Inference):
    """The inference of what trains, which a Ctrl-C stops between two batches.

    Parameters
    ----------
    compiled : CompiledNetwork
    interrupts : Interrupts
    cut : tuple of str
        As for `Inference`.
    """

    def __init__(self, compiled: CompiledNetwork, interrupts: Interrupts, cut: tuple[str, ...]):
        super().__init__(compiled.network, compiled, cut)
        self._interrupts = interrupts

    def __call__(self, inputs: Any, what: str = "outputs") -> np.ndarray:
        """Return the outputs for one batch, or raise the KeyboardInterrupt that came."""
        self._interrupts.check()
        return super().__call__(inputs, what)
