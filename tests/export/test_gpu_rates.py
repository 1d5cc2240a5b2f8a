"""The rates by architecture number, which the runtime knows, and those by device, which `unblur estimate` knows."""

import pytest

from unblur.export.estimate.devices import find_device
from unblur.runtime.profile.gpu_peaks import OPERATIONS_A_CLOCK


@pytest.mark.parametrize(
    ("name", "sm"),
    [
        ("nano", 53),
        ("tx2", 62),
        ("agx-xavier", 72),
        ("t4", 75),
        ("rtx-3060", 86),
        ("orin-nx", 87),
        ("rtx-4090", 89),
        ("h200", 90),
        ("thor", 110),
        ("rtx-5090", 120),
    ],
)
def test_they_agree(name: str, sm: int) -> None:
    rates = find_device(name).architecture.rates
    assert OPERATIONS_A_CLOCK[sm] == {precision: rate.fast for precision, rate in rates.items()}
