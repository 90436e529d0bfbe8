"""Code that bypasses Lightning for speed, or relies on names that it does not promise."""
