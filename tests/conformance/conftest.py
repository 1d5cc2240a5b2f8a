"""Where the tests of conformance find their helpers and keep what they download."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def cache(request: pytest.FixtureRequest) -> Path:
    """Kept between runs, outside of what git tracks."""
    assert request.config.cache is not None
    return Path(request.config.cache.mkdir("conformance"))
