"""What the fuzzer has found stays found: every saved input, and a few new ones of each kind."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.targets import TARGETS, Place

CORPUS = Path(__file__).parent / "corpus"
_SETTINGS = settings(
    max_examples=4, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("default")
def test_the_contract_holds(name: str, place: Place) -> None:
    target = TARGETS[name]
    seeds = target.seeds(place)
    for data in (*seeds, *(saved.read_bytes() for saved in sorted((CORPUS / name).glob("*")))):
        target.attack(place, data)

    @given(target.strategy(seeds))
    @settings(_SETTINGS)
    def attack(data: bytes) -> None:
        target.attack(place, data)

    attack()
