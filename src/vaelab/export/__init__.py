"""A finished run as files for others."""
