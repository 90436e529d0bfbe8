"""TensorBoard's scalars, at a fraction of what they cost a training of small steps."""

from collections.abc import Mapping
from time import monotonic
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary

FLUSH = 1.0  # seconds, at least, from one flush of the file to the next


class TensorBoard(TensorBoardLogger):
    """Lightning's, which writes all scalars of a step as one record of the event file.

    Lightning writes one for each, with a checksum that is computed in Python, and flushes the file
    whenever anyone has logged something, which stops training until all is on the disk.
    """

    step: int | None = None
    scalars: Mapping[str, float] = {}
    flushed = float("-inf")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Takes numbers, and tensors of one number, by name; whatever else as Lightning does."""
        if self._prefix or any(isinstance(value, dict) for value in metrics.values()):
            super().log_metrics(metrics, step)
            return
        if step != self.step:
            self.write()
        self.step = step
        self.scalars = {**self.scalars, **{name: float(x) for name, x in metrics.items()}}

    def write(self) -> None:
        """Writes what was logged of the last step."""
        values = [Summary.Value(tag=name, simple_value=x) for name, x in self.scalars.items()]
        if values:
            self.experiment._get_file_writer().add_summary(Summary(value=values), self.step)
            self.scalars = {}

    @rank_zero_only
    def save(self) -> None:
        self.write()
        if monotonic() - self.flushed >= FLUSH:
            super().save()
            self.flushed = monotonic()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.write()
        super().finalize(status)
