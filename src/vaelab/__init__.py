"""Variational auto-encoders as small differences from one ELBO."""

__version__ = "0.1.0"
