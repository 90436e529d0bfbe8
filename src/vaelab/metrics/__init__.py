"""Metrics that are reported and not optimised: functions of tensors, or of a model and images."""

from vaelab.metrics.bits import bits_per_dim

__all__ = ["bits_per_dim"]
