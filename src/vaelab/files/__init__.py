"""Files: written whole, verified by checksums, and refused if they are pipes or devices."""
