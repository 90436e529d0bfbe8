"""A run on disk: what lies where in its folder, and how to load, resume and compare it."""
