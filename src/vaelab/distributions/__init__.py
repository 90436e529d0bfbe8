"""Distributions and functions of distributions that `torch.distributions` lacks."""
