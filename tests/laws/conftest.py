"""Fixtures shared by the tests in tests/laws."""

import pytest
from support.linear_gaussian import principal_components


@pytest.fixture
def linear():
    """A linear-Gaussian VAE with known log evidence: probabilistic PCA, orthogonal loadings."""
    return principal_components()
