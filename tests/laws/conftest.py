"""Fixtures of the laws."""

import pytest
from support.linear_gaussian import principal_components


@pytest.fixture
def linear():
    """Probabilistic PCA with orthogonal loadings."""
    return principal_components()
