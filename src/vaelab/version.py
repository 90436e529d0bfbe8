"""The version of vaelab, stated only here."""

__version__ = "0.1.0"
