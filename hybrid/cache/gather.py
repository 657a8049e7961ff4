"""Rows that another device computed, brought to the device that joins.

other device    rows [tokens * k, hidden] ─ those of its experts ─> packed [n, hidden]
first device                             ─ link ─> landing [n, hidden] ─> rows, in their places
"""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybrid.accelerator.interface import Accelerator, Event


class Gather:
    """The way from one device to the first. One thread uses it, a layer at a time."""

    def __init__(self, there: Accelerator, here: Accelerator, hidden: int) -> None:
        self._there, self._here, self._hidden = there, here, hidden
        self._away, self._home = there.stream("rows away"), here.stream("rows home")
        self._rows = torch.empty((0, hidden), device=there.device)
        self._packed, self._landing = self._rows, torch.empty((0, hidden), device=here.device)
        self._indices: tuple[Tensor, ...] = ()  # alive until the next layer

    def rows(self, count: int) -> tuple[Tensor, Event]:
        """Rows [count, hidden] on the other device, and when they may be written."""
        if len(self._rows) < count:
            self._rows = torch.empty((count, self._hidden), device=self._there.device)
        return self._rows[:count], self._there.current().record()

    def bring(
        self, positions: NDArray[np.int64], written: Event, rows: Tensor, ready: Event
    ) -> Event:
        """Copy the rows at `positions`, once `written`, to the first device's `rows`, once `ready`.

        The event is behind the last of them. `rows` is [tokens * k, hidden].
        """
        count = len(positions)
        index = torch.from_numpy(positions)
        there = torch.empty_like(index, device=self._there.device)
        here = torch.empty_like(index, device=self._here.device)
        self._indices = index, there, here
        if len(self._packed) < count:
            self._packed = torch.empty((count, self._hidden), device=self._there.device)
            self._landing = torch.empty((count, self._hidden), device=self._here.device)
        packed, landing = self._packed[:count], self._landing[:count]
        for stream, unit in ((self._away, self._there), (self._home, self._here)):
            stream.after(unit.current().record())  # who allocates memory may have used it before
        self._away.after(written)
        self._away.copy(there, index)
        self._away.run(partial(_select, self._rows, there, packed))
        self._away.copy(landing, packed)
        self._home.after(self._away.record())
        self._home.after(ready)
        self._home.copy(here, index)
        self._home.run(partial(_place, rows, here, landing))
        return self._home.record()

    def settle(self) -> None:
        """Give up what is under way."""
        self._away.settle()
        self._home.settle()

    def close(self) -> None:
        """End the streams."""
        self._away.close()
        self._home.close()


def _select(rows: Tensor, index: Tensor, packed: Tensor) -> None:
    torch.index_select(rows, 0, index, out=packed)


def _place(rows: Tensor, index: Tensor, landing: Tensor) -> None:
    rows.index_copy_(0, index, landing)
