"""Which rails together are what the device takes: rails lie behind one another, so adding all counts some twice.

Of the Jetsons NVIDIA's staff says so in forums.developer.nvidia.com/t/73608 (POM_5V_IN), /81016 (AGX Xavier),
/217088 (AGX Orin) and /242804 (Orin NX); of Thor, github.com/rbonghi/jetson_stats/pull/900.
"""

from collections.abc import Collection

_OF_THE_DEVICE = (
    ("VIN",),  # the carrier board of AGX Thor
    ("VDD_IN",),  # Orin Nano and NX, Xavier NX, TX2
    ("POM_5V_IN",),  # Nano
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),  # Thor on other carrier boards
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
    ("platform",),  # a PC whose board reports to its processor
)
"""The first of these whose rails are all there is the total."""

_OF_A_PROCESSOR = ("GPU board", "CPU package")
"""How names begin of rails that hold one processor, where nothing measures the whole: those add up."""


def total_rails(rails: Collection[str]) -> tuple[str, ...]:
    """The rails to add up; () if those that are there say nothing of the whole."""
    for total in _OF_THE_DEVICE:
        if all(rail in rails for rail in total):
            return total
    return tuple(rail for rail in rails if rail.startswith(_OF_A_PROCESSOR))
