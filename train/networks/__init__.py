"""The networks, by preset name.

    network = build_network("lprn-s", steps=3)

A preset is a named configuration of a system. To add a system: one file here, its presets below, its recipe in
`unblur.train.recipe`.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points

from torch import nn

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.spec import ModelSpec, OptionValue
from unblur.train.networks.base import DeblurringNetwork, count_parameters, gflop_720p
from unblur.train.networks.deblurgan import DeblurGAN, FeedbackDeblurGAN
from unblur.train.networks.discriminators import PatchDiscriminator
from unblur.train.networks.lprn import LPRN
from unblur.train.networks.msr_gan import MSRGAN, MSRGANDiscriminator
from unblur.train.networks.msrm_dffm import MSRMDFFM
from unblur.train.networks.pix2pix import Pix2Pix
from unblur.train.networks.rir import RiR
from unblur.train.networks.srn import SRN

__all__ = [
    "PRESETS",
    "DeblurringNetwork",
    "Preset",
    "build_network",
    "count_parameters",
    "find_preset",
    "gflop_720p",
    "network_from_spec",
    "preset_names",
]


GROUP = "unblur.networks"  # of the entry points by which packages add presets


@dataclass(frozen=True)
class Preset:
    """A named configuration. source: the paper it comes from.

    discriminator: makes the second network of adversarial training: images as in `DeblurringNetwork` -> logits,
        before any sigmoid; None where the paper trains without one.
    """

    system: str
    network: type[DeblurringNetwork]
    options: Mapping[str, OptionValue]
    source: str
    discriminator: Callable[[], nn.Module] | None = None


_LPRN_SOURCE = "Fast Image Deblurring Based On the Lightweight Progressive Residual Network"
_LPRN_EDGE_SOURCE = f"{_LPRN_SOURCE}; U-shaped base on a space-to-depth grid"
_GANS_SOURCE = "Blind Deblurring using GANs"
_MSR_GAN_SOURCE = "Motion Blur Image Restoration by Multi-Scale Residual Neural Network"
_MSRM_DFFM_SOURCE = "Wan et al. 2023, MSRM-DFFM U-Net"


def _edge(width: str, blocks: str) -> Preset:
    options: dict[str, OptionValue] = {
        "base": "u",
        "width": width,
        "blocks": blocks,
        "steps": 1,
        "grid": 4,
        "attention": "none",
        "pooling": "local",
    }
    return Preset("lprn", LPRN, options, _LPRN_EDGE_SOURCE)


def _srn(name: str, **options: OptionValue) -> Preset:
    return Preset("srn", SRN, options, f"Tao et al. 2018, SRN-DeblurNet, {name}")


def _pix2pix(row: str, **options: OptionValue) -> Preset:
    return Preset("pix2pix", Pix2Pix, options, f"{_GANS_SOURCE}, {row}", _patch_gan(options))


def _rir(row: str, levels: int) -> Preset:
    options: dict[str, OptionValue] = {"levels": levels}
    return Preset("rir", RiR, options, f"{_GANS_SOURCE}, {row}", _patch_gan({"spectral_norm": True}))


def _deblurgan(row: str, network: type[DeblurringNetwork], **options: OptionValue) -> Preset:
    return Preset("deblurgan", network, options, f"{_GANS_SOURCE}, {row}", PatchDiscriminator)


def _patch_gan(options: Mapping[str, OptionValue]) -> Callable[..., nn.Module]:
    """The paper puts spectral normalisation on both networks or on neither."""
    return partial(PatchDiscriminator, spectral_norm=bool(options.get("spectral_norm", False)))


def _unet(*, msrm: bool, dffm: bool) -> Preset:
    return Preset("msrm-dffm", MSRMDFFM, {"msrm": msrm, "dffm": dffm}, _MSRM_DFFM_SOURCE)


PRESETS: Mapping[str, Preset] = {
    "lprn": Preset("lprn", LPRN, {"width": 64, "blocks": 4, "steps": 6}, _LPRN_SOURCE),
    "lprn-n": _edge(width="16,32,48,64", blocks="1,1,2,3,1,1,1"),
    "lprn-s": _edge(width="32,64,96,128", blocks="3,2,2,4,2,2,4"),
    "srn": _srn("SR-EDRB3"),
    "srn-edrb2": _srn("SR-EDRB2", blocks=2),
    "srn-edrb1": _srn("SR-EDRB1", blocks=1),
    "srn-ed": _srn("SR-ED", block="plain"),
    "srn-rb": _srn("SR-RB", layout="flat", state="none"),
    "srn-flat": _srn("SR-Flat", layout="flat", block="plain", state="none"),
    "srn-rnn": _srn("RNN", state="rnn"),
    "srn-wor": _srn("w/oR", state="none"),
    "srn-sc": _srn("SC", shared=False, state="none"),
    "srn-ss": _srn("SS", scales=1, state="none"),
    "msr-gan": Preset(
        "msr-gan",
        MSRGAN,
        {},
        "Motion Blur Image Restoration by Multi-Scale Residual Neural Network",
        MSRGANDiscriminator,
    ),
    "msrm-dffm": _unet(msrm=True, dffm=True),
    "msrm-dffm-base": _unet(msrm=False, dffm=False),
    "msrm-dffm-only-msrm": _unet(msrm=True, dffm=False),
    "msrm-dffm-only-dffm": _unet(msrm=False, dffm=True),
    "pix2pix": _pix2pix("Pix2Pix"),
    "pix2pix-sa": _pix2pix("Pix2Pix + Sl. Attn", self_attention=True),
    "pix2pix-sa-gr": _pix2pix("Pix2Pix + Sl. Attn + GR", self_attention=True, global_residual=True),
    "pix2pix-sa-sn": _pix2pix("Pix2Pix + Sl. Attn + SN", self_attention=True, spectral_norm=True),
    "pix2pix-all": _pix2pix(
        "Pix2Pix + Sl. Attn + Ch. Attn + GR + SN",
        self_attention=True,
        channel_attention=True,
        global_residual=True,
        spectral_norm=True,
    ),
    "rir": _rir("RiR", levels=4),
    "rir-large": _rir("RiR (Large)", levels=5),
    "deblurgan": _deblurgan("DeblurGAN", DeblurGAN),
    "deblurgan-edges": _deblurgan("DeblurGAN + Edge Information", DeblurGAN, edges=True),
    "deblurgan-feedback": _deblurgan("DeblurGAN + Feedback", FeedbackDeblurGAN, steps=4),
}


def preset_names() -> tuple[str, ...]:
    """All presets: ours, then those of installed packages (entry points of the group "unblur.networks")."""
    return (*PRESETS, *(entry.name for entry in entry_points(group=GROUP) if entry.name not in PRESETS))


def find_preset(name: str) -> Preset:
    """The preset of that name; BadInput with the nearest name if there is none, or if a package's does not load."""
    if name in PRESETS:
        return PRESETS[name]
    for entry in entry_points(group=GROUP, name=name):
        return _loaded(entry)
    names = preset_names()
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{nearest[0]}'? " if nearest else ""
    raise BadInput(f"unknown preset '{name}'; {hint}`unblur train --list` shows all {len(names)}")


def _loaded(entry: EntryPoint) -> Preset:
    try:
        preset = entry.load()
    except (ImportError, AttributeError) as error:
        raise BadInput(f"preset '{entry.name}' of {entry.value} does not load: {error}") from error
    if not isinstance(preset, Preset):
        raise BadInput(f"preset '{entry.name}' of {entry.value} is a {type(preset).__name__}, expected a Preset")
    return preset


def build_network(preset: str, **options: OptionValue) -> DeblurringNetwork:
    """An untrained network; `options` replace those of the preset.

    Raises BadInput for an unknown preset (with the nearest name) or option, ValueError for an option's value.
    """
    chosen = find_preset(preset)
    return _construct(chosen, preset, {**chosen.options, **options})


_MOST = 1024


def network_from_spec(spec: ModelSpec) -> DeblurringNetwork:
    """The untrained network that a checkpoint's spec describes; SpecMismatch if this version cannot build it."""
    if spec.preset not in preset_names() or find_preset(spec.preset).system != spec.system:
        raise SpecMismatch(f"unknown system '{spec.system}' or preset '{spec.preset}' in the model spec")
    preset = find_preset(spec.preset)
    steps: dict[str, OptionValue] = {"steps": spec.steps} if preset.network.recursive or spec.steps > 1 else {}
    try:
        _check_sizes(spec.options)
        return _construct(preset, spec.preset, {**spec.options, **steps})
    except (BadInput, ValueError, RuntimeError) as error:
        raise SpecMismatch(f"the model spec is of another preset or another version of unblur: {error}") from error


def _check_sizes(options: Mapping[str, OptionValue]) -> None:
    """ValueError for a width, or a number of blocks, that no network has and that would never be built."""
    for name, value in options.items():
        if any(int(number) > _MOST for number in re.findall(r"\d+", str(value)) if not isinstance(value, float)):
            raise ValueError(f"its option '{name}' is {str(value)[:20]}, expected at most {_MOST}")


def _construct(preset: Preset, name: str, options: Mapping[str, OptionValue]) -> DeblurringNetwork:
    try:
        return preset.network(preset=name, **options)
    except TypeError as error:
        raise BadInput(f"preset '{name}' does not take these options: {error}") from error
