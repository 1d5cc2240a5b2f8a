"""How two calibration tables differ."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from unblur.runtime.calibration_table import CalibrationTable, TensorRange, fields_of

_RANGES = ("ranges", "implicit")
_SHA256 = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


@dataclass(frozen=True)
class TableDiff:
    """settings: field -> both values, e.g. "preprocessing.blurred". only_in_first, only_in_second: tensors.
    moved: tensor -> amax in both, where it moved by more than was allowed.
    """

    settings: Mapping[str, tuple[object, object]]
    only_in_first: tuple[str, ...]
    only_in_second: tuple[str, ...]
    moved: Mapping[str, tuple[float, float]]

    def __bool__(self) -> bool:
        """True if there is any difference."""
        return bool(self.settings or self.only_in_first or self.only_in_second or self.moved)

    def lines(self) -> Iterator[str]:
        """One line a difference, as people read it."""
        for field, (first, second) in self.settings.items():
            yield f"{field}: {_shown(first)} -> {_shown(second)}"
        yield from (f"tensor {name}: only in the first" for name in self.only_in_first)
        yield from (f"tensor {name}: only in the second" for name in self.only_in_second)
        for name, (first_amax, second_amax) in self.moved.items():
            change = 100 * (second_amax / first_amax - 1)
            yield f"tensor {name}: amax {first_amax:.6g} -> {second_amax:.6g} ({change:+.1f} %)"


def diff(first: CalibrationTable, second: CalibrationTable, *, percent: float = 5.0) -> TableDiff:
    """percent: a range that moved by no more, relative to the first, counts as equal."""
    before, after = _tensors(first), _tensors(second)
    return TableDiff(
        settings=_differing(_settings(first), _settings(second)),
        only_in_first=tuple(name for name in before if name not in after),
        only_in_second=tuple(name for name in after if name not in before),
        moved={
            name: (value.amax, after[name].amax)
            for name, value in before.items()
            if name in after and abs(after[name].amax - value.amax) > percent / 100 * value.amax
        },
    )


def _tensors(table: CalibrationTable) -> dict[str, TensorRange]:
    return {**table.ranges, **table.implicit}


def _settings(table: CalibrationTable) -> dict[str, object]:
    """Every field but the ranges, nested ones by their path."""
    return dict(_flat({name: value for name, value in fields_of(table).items() if name not in _RANGES}))


def _flat(fields: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _differing(first: Mapping[str, object], second: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    names = dict.fromkeys((*first, *second))
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nothing"
    return _SHA256.sub(r"\1...", str(value))
