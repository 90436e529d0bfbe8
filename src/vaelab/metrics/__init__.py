"""Numbers we report but do not optimise: functions of tensors, and of a model and its images."""

from vaelab.metrics.bits import bits_per_dim

__all__ = ["bits_per_dim"]
