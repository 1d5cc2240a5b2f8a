"""Which operations a runtime does together: a kernel reads what comes from outside and writes what leaves it."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from unblur.export.estimate.graph import Network, Operation

MULTIPLYING = frozenset({"convolution", "grouped", "transposed", "product"})


@dataclass(frozen=True)
class Kernel:
    """Operations done together, those behind `main` on the elements that it makes.

    reads, writes: activations that pass through the device's memory. weights: elements of the constants.
    """

    main: Operation
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    weights: int

    @property
    def multiplies(self) -> bool:
        """Whether arithmetic, not only memory, can bound it."""
        return self.main.kind in MULTIPLYING


def kernels_of(network: Network, *, fuse: bool, in_place: Collection[str] = ()) -> list[Kernel]:
    """The kernels in order: an operation each, or, with `fuse`, with the elementwise operations behind it.

    An elementwise operation joins the kernel that makes the last of its inputs. in_place: ONNX operators that need
    no kernel, since those before them write where they would.
    """
    groups: list[list[Operation]] = []
    made_in: dict[str, int] = {}  # activation -> its group
    for operation in network.operations:
        if operation.operator in in_place:
            continue
        latest = max((made_in.get(name, -1) for name in operation.reads), default=-1)
        if not fuse or operation.kind != "elementwise" or latest < 0:
            latest = len(groups)
            groups.append([])
        groups[latest].append(operation)
        made_in |= dict.fromkeys(operation.writes, latest)
    readers = Counter(name for operation in network.operations for name in operation.reads)
    return [_kernel(group, readers) for group in groups]


def _kernel(group: Sequence[Operation], readers: Counter[str]) -> Kernel:
    inside = Counter(name for operation in group for name in operation.reads)
    written = dict.fromkeys(name for operation in group for name in operation.writes)
    return Kernel(
        main=group[0],
        reads=tuple(name for name in inside if name not in written),
        writes=tuple(name for name in written if inside[name] < readers[name] or not readers[name]),
        weights=sum(operation.weights for operation in group),
    )
