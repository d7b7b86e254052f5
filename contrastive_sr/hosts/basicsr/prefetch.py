"""``prefetch_mode: cpu`` with errors that end the training.

BasicSR loads ahead in a thread of its own. An error there ends that thread alone, and the training waits for its next
batch for ever.
"""

from __future__ import annotations

from typing import Any

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
