"""Which sizes a torch module takes, and which of its outputs is the image: found by running it on small images.

That is what exporting it needs; the rest of its spec is found in the exported graph, as in any ONNX file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from unblur.runtime.errors import SpecMismatch

_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
_SMALLEST = 48  # pixels: room for a network that halves its image a few times


@dataclass(frozen=True)
class ModuleShape:
    """multiple_of: what height and width must be multiples of. output: index of the output that is the image.
    scale: its size over that of the input. outputs: how many there are.
    """

    multiple_of: int
    output: int
    scale: int = 1
    outputs: int = 1


def shape_of_module(
    module: nn.Module, name: str, *, output: int | None = None, multiple_of: int | None = None
) -> ModuleShape:
    """Run `module` on images of a few sizes. output, multiple_of: where the caller knows them.

    Raises SpecMismatch if no size works, or several outputs could be the image.
    """
    multiples = _MULTIPLES if multiple_of is None else (multiple_of,)
    problem = "it was not run"
    for multiple in multiples:
        try:
            found = {_image_among(_run(module, size_hw), size_hw, output) for size_hw in _sizes(multiple)}
        except _Ambiguous:
            raise
        except Exception as error:  # noqa: BLE001  # the user's code: any, at sizes that it does not take
            problem = " ".join(str(error).split())
            continue
        if len(found) == 1:
            return ModuleShape(multiple, *found.pop())
        problem = "which output is the image depends on the size"
    raise SpecMismatch(
        f"{name} does not restore an image of 3 channels at multiples of {multiples[-1]} pixels: {problem}"
    )


class _Ambiguous(SpecMismatch):
    """Several outputs could be the image."""


def outputs_of(result: object) -> list[Tensor]:
    """The tensors that a module returned, in order; nested lists, tuples and dicts are flattened."""
    return [leaf for leaf in _pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def _sizes(multiple: int) -> Iterator[tuple[int, int]]:
    """Two sizes whose sides are odd multiples: what takes them takes all multiples."""
    first = -(-_SMALLEST // multiple) | 1
    yield first * multiple, (first + 2) * multiple
    yield (first + 4) * multiple, first * multiple


def _run(module: nn.Module, size_hw: tuple[int, int]) -> list[Tensor]:
    parameter = next(module.parameters(), torch.empty(0))
    images = torch.rand((1, 3, *size_hw), generator=torch.Generator().manual_seed(0)).to(parameter)
    with torch.inference_mode():
        return outputs_of(module(images))


def _image_among(outputs: Sequence[Tensor], size_hw: tuple[int, int], chosen: int | None) -> tuple[int, int, int]:
    """The index and the scale of the output that has the shape of an image, the largest; how many there are."""
    scales = {index: _scale(output, size_hw) for index, output in enumerate(outputs)}
    fitting = {index: scale for index, scale in scales.items() if scale and chosen in (None, index)}
    largest = [index for index, scale in fitting.items() if scale == max(fitting.values())]
    if len(largest) == 1:
        return largest[0], fitting[largest[0]], len(outputs)
    shapes = ", ".join(f"{index}: {_text(output.shape)}" for index, output in enumerate(outputs))
    if largest:
        raise _Ambiguous(
            f"the network has several outputs of the size of the image ({shapes}); choose one with --output-name, "
            f"probably {largest[-1]}"
        )
    raise ValueError(f"of an image of {_text((1, 3, *size_hw))} it made {shapes or 'nothing'}")


def _scale(output: Tensor, size_hw: tuple[int, int]) -> int:
    """How many times larger than the image an output is; 0 if it is not an image."""
    scale = output.shape[-1] // size_hw[1] if output.ndim == 4 else 0
    return scale if tuple(output.shape) == (1, 3, *(scale * side for side in size_hw)) else 0


def _text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
