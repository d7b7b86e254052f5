"""``prefetch_mode: cpu`` with errors that end the training, and ``prefetch_mode: cuda`` on any machine.

For the first BasicSR loads ahead in a thread of its own. An error there ends that thread alone, and the training waits
for its next batch for ever. For the second it copies batches on a CUDA stream of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from basicsr.data import prefetch_dataloader


class PrefetchGenerator(prefetch_dataloader.PrefetchGenerator):
    """BasicSR's, but its errors reach the training, at the next batch."""

    def run(self) -> None:
        """Load; in place of the batch at which an error was raised, the error is put."""
        try:
            super().run()
        except Exception as error:
            self.queue.put(error)

    def __next__(self) -> Any:
        """The next batch."""
        batch = super().__next__()
        if isinstance(batch, Exception):
            raise batch
        return batch


prefetch_dataloader.PrefetchGenerator = PrefetchGenerator  # in memory; BasicSR's loader looks it up at each epoch


_stock_next = prefetch_dataloader.CUDAPrefetcher.next


def _new(cls: type, loader: Any, opt: Any) -> Any:
    """Without CUDA there is nothing to copy ahead to: the batches as they are loaded."""
    return object.__new__(cls) if torch.cuda.is_available() else prefetch_dataloader.CPUPrefetcher(loader)


def _next(self: Any) -> Any:
    """As BasicSR's; but the memory of a batch is not given to the next before the step that uses it is over.

    BasicSR relies on the host waiting for the GPU at each step.
    """
    batch = _stock_next(self)
    for value in (batch or {}).values():
        if isinstance(value, torch.Tensor) and value.is_cuda:
            value.record_stream(torch.cuda.current_stream())
    return batch


prefetch_dataloader.CUDAPrefetcher.__new__ = _new  # in memory; `basicsr.train` has the class already
prefetch_dataloader.CUDAPrefetcher.next = _next
