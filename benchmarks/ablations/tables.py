"""The papers' ablation tables: what varies from row to row, and what the paper reports for it.

The published figures come from full networks, whole data sets and weeks of training. They stand beside ours so that
the order can be compared, not the values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from unblur.runtime.spec import OptionValue


@dataclass(frozen=True)
class Published:
    """What the paper reports for a row, as printed; empty where it reports nothing."""

    psnr_db: str = ""
    ssim: str = ""
    parameters: str = ""


@dataclass(frozen=True)
class Row:
    """One network of a table. options: of the preset's network. adversarial, seed: replace those of its recipe."""

    name: str
    preset: str
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    adversarial: Literal["none"] | None = None
    seed: int | None = None
    published: Published = Published()


@dataclass(frozen=True)
class Table:
    """source: where the published figures are. note: what they were measured on."""

    title: str
    source: str
    note: str
    rows: tuple[Row, ...]


_LPRN_NOTE = 'its own synthetic test set; the unit of its parameters, "Mb", is not explained'
_LPRN_SOURCE = '"Fast Image Deblurring Based On the Lightweight Progressive Residual Network"'
_GANS = '"Blind Deblurring using GANs"'
_GOPRO = "GoPro's test set"


def _srn(name: str, preset: str, psnr_db: str, ssim: str, parameters: str) -> Row:
    return Row(name, preset, published=Published(psnr_db, ssim, parameters))


def _gans(name: str, preset: str, psnr_db: str, ssim: str) -> Row:
    return Row(name, preset, published=Published(psnr_db, ssim))


def _edge(name: str, seed: int = 0, psnr_db: str = "", **options: OptionValue) -> Row:
    return Row(name, "lprn-n", options, published=Published(psnr_db), seed=seed)


TABLES: Mapping[str, Table] = {
    "lprn-edge": Table(
        "LPRN with a U-shaped base: attention and recursion steps",
        f"{_LPRN_SOURCE}, table 2",
        "its own synthetic test set, a plain base network and six steps",
        (
            _edge("no attention, 1 step", attention="none", psnr_db="30.08"),
            _edge("no attention, 1 step, another seed", 1, attention="none", psnr_db="30.08"),
            _edge("channel attention", attention="channel", psnr_db="30.16"),
            _edge("spatial attention", attention="spatial", psnr_db="30.14"),
            _edge("channel and spatial attention", attention="both", psnr_db="30.21"),
            _edge("channel and spatial attention, another seed", 1, attention="both", psnr_db="30.21"),
            _edge("no attention, 2 steps", attention="none", steps=2),
            _edge("no attention, 1 step, wider: no more GFLOP than 2 steps", attention="none", width="24,48,64,96"),
            _edge("no attention, 3 steps", attention="none", steps=3),
        ),
    ),
    "lprn-attention": Table(
        "LPRN: feature recalibration",
        f"{_LPRN_SOURCE}, table 2",
        _LPRN_NOTE,
        tuple(
            Row(name, "lprn", {"attention": attention}, published=Published(psnr_db, "", f"{megabytes} Mb"))
            for name, attention, psnr_db, megabytes in (
                ("no attention", "none", "30.08", "26.316"),
                ("channel attention", "channel", "30.16", "26.319"),
                ("spatial attention", "spatial", "30.14", "26.317"),
                ("channel and spatial attention", "both", "30.21", "26.321"),
            )
        ),
    ),
    "lprn-steps": Table(
        "LPRN: recursion steps",
        f"{_LPRN_SOURCE}, table 3",
        _LPRN_NOTE + ", and grows with the steps although they share their weights",
        tuple(
            Row(f"{steps} steps", "lprn", {"steps": steps}, published=Published(psnr_db, "", f"{megabytes} Mb"))
            for steps, psnr_db, megabytes in (
                (5, "30.17", "20.064"),
                (6, "30.21", "26.321"),
                (7, "30.21", "30.712"),
            )
        ),
    ),
    "srn": Table(
        "SRN-DeblurNet: scales, recurrence and building blocks",
        "Tao et al. 2018, table 1",
        _GOPRO,
        (
            _srn("SS", "srn-ss", "28.40", "0.9045", "2.73 M"),
            _srn("SC", "srn-sc", "29.05", "0.9166", "8.19 M"),
            _srn("w/o R", "srn-wor", "29.26", "0.9197", "2.73 M"),
            _srn("RNN", "srn-rnn", "29.35", "0.9210", "3.03 M"),
            _srn("SR-Flat", "srn-flat", "27.53", "0.8886", "2.66 M"),
            _srn("SR-RB", "srn-rb", "28.11", "0.8991", "2.66 M"),
            _srn("SR-ED", "srn-ed", "29.06", "0.9170", "3.76 M"),
            _srn("SR-EDRB1", "srn-edrb1", "28.60", "0.9082", "2.21 M"),
            _srn("SR-EDRB2", "srn-edrb2", "29.32", "0.9204", "2.99 M"),
            _srn("SR-EDRB3", "srn", "29.98", "0.9254", "3.76 M"),
        ),
    ),
    "msrm-dffm": Table(
        "MSRM-DFFM U-Net: its two modules",
        "Wan et al. 2023, table 2",
        _GOPRO + "; it has no row with MSRM alone",
        (
            Row("baseline", "msrm-dffm-base", published=Published("31.66", "0.948")),
            Row("+ DFFM", "msrm-dffm-only-dffm", published=Published("31.78", "0.951")),
            Row("+ MSRM", "msrm-dffm-only-msrm"),
            Row("+ DFFM + MSRM", "msrm-dffm", published=Published("31.95", "0.954")),
        ),
    ),
    "msr-gan": Table(
        "MSR-GAN: multi-scale residual blocks and the adversarial loss",
        '"Motion Blur Image Restoration by Multi-Scale Residual Neural Network"',
        _GOPRO + ', by its own evaluation; "Nah et al." there is the network without the new blocks',
        (
            Row("residual blocks only", "msr-gan", {"msrbs": 0}, published=Published("26.64", "0.9142")),
            Row("MSR-GAN", "msr-gan", published=Published("27.33", "0.9324")),
            Row("MSR-GAN without adversarial loss", "msr-gan", adversarial="none"),
        ),
    ),
    "pix2pix": Table(
        "Pix2Pix: attention, global residual, spectral normalisation",
        f"{_GANS}, section 5.1",
        _GOPRO + ", in squares of 256 px",
        (
            _gans("Pix2Pix", "pix2pix", "25.41", "0.810"),
            _gans("+ self-attention", "pix2pix-sa", "25.41", "0.808"),
            _gans("+ self-attention + global residual", "pix2pix-sa-gr", "27.29", "0.858"),
            _gans("+ self-attention + spectral normalisation", "pix2pix-sa-sn", "26.05", "0.831"),
            _gans("+ all of these, channel attention, perceptual loss", "pix2pix-all", "27.05", "0.831"),
        ),
    ),
    "rir": Table(
        "RiR: one level more",
        f"{_GANS}, section 5.2",
        _GOPRO + "; the two rows differ in their loss too",
        (
            _gans("RiR", "rir", "22.70", "0.640"),
            _gans("RiR (Large)", "rir-large", "23.46", "0.671"),
        ),
    ),
    "deblurgan": Table(
        "DeblurGAN: edges and feedback",
        f"{_GANS}, section 5.3",
        _GOPRO,
        (
            _gans("DeblurGAN", "deblurgan", "28.70", "0.958"),
            _gans("+ edge information", "deblurgan-edges", "25.27", "0.773"),
            _gans("+ feedback", "deblurgan-feedback", "27.20", "0.827"),
        ),
    ),
}
