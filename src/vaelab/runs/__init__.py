"""Finished and unfinished runs on disk: what lies where, loading, resuming and comparing."""
