"""The command line: Hydra, its checks, and the commands."""
