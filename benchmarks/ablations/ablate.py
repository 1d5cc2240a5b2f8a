"""Train every row of an ablation table on the same small budget, and measure all on the same pairs.

    ablation = Ablation(data, Budget(Length(iterations=300)), out)
    results = [ablation.result_of(row) for row in TABLES["lprn-steps"].rows]

A row is a run like any other, in a folder of its own under `out`. It goes on from its last checkpoint if it was
stopped, and a row that is done, as its `result.json` shows, is not trained again.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.ablations.tables import Row
from unblur.runtime.errors import BadInput
from unblur.runtime.files import atomic_file
from unblur.runtime.metrics import psnr_db, ssim
from unblur.runtime.spec import OptionValue
from unblur.train.data import TrainingData, validation_frames
from unblur.train.loop import VALIDATION_CROP, Length, Schedule, train
from unblur.train.networks import (
    DeblurringNetwork,
    build_network,
    count_parameters,
    find_preset,
    gflop_720p,
)
from unblur.train.networks.options import parse_options
from unblur.train.recipe import Recipe, recipe_of
from unblur.train.run_folder import LOG_FILE, Report

RESULT_FILE = "result.json"
_NEVER = 10**9
_WITHOUT_VGG = "L1 in place of the perceptual loss"


@dataclass(frozen=True)
class Budget:
    """What every row gets. options: of the networks, as typed. overrides: of fields of the recipes, e.g. `crop`."""

    length: Length
    options: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Quality:
    """Means over the held-out pairs."""

    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class Result:
    """A row that was trained. quality: of its averaged weights. note: where its recipe could not be followed."""

    parameters: int
    gflop_720p: float
    iterations: int
    seconds: float
    quality: Quality
    note: str


@dataclass(frozen=True)
class Ablation:
    """perceptual: the loss behind a perceptual term; if it is None, L1 takes the place of such a term."""

    data: TrainingData
    budget: Budget
    out: Path
    perceptual: nn.Module | None = None
    workers: int | None = None
    threads: int | None = None

    def blurred(self) -> Quality:
        """The held-out pairs before any network."""
        pairs = validation_frames(self.data, VALIDATION_CROP)
        scores = [(psnr_db(blurred, sharp), ssim(blurred, sharp)) for blurred, sharp in pairs]
        return Quality(*map(float, np.mean(scores, axis=0)))

    def result_of(self, row: Row, on_report: Callable[[Report], None] = lambda report: None) -> Result:
        """Train the row, or read what an earlier call found. on_report: as of `train`.

        Raises BadInput if the folder of the row holds one of other settings, and what `train` raises.
        """
        recipe, note = self._recipe(row)
        settings = {
            "preset": row.preset,
            "options": self._options(row),
            "recipe": json.loads(recipe.to_json()),
            "length": asdict(self.budget.length),
            "data": list(self.data.names),
            "held_out": len(self.data.held_out) + len(self.data.held_out_stills),
        }
        path = self.out / folder_name(row) / RESULT_FILE
        if path.is_file():
            return _read_result(path, settings)
        last = self._train(row, recipe, on_report)
        network = self.network_of(row)
        result = Result(
            parameters=count_parameters(network),
            gflop_720p=gflop_720p(network),
            iterations=last["iteration"],
            seconds=last["elapsed_s"],
            quality=Quality(last["psnr_db"], last["ssim"]),
            note=note,
        )
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps({"settings": settings, "result": asdict(result)}, indent=2) + "\n")
        return result

    def network_of(self, row: Row) -> DeblurringNetwork:
        """The untrained network of a row; BadInput for an option it does not have, or that the table varies."""
        try:
            return build_network(row.preset, **self._options(row))
        except ValueError as error:
            raise BadInput(f"row '{row.name}': {error}") from error

    def _train(self, row: Row, recipe: Recipe, on_report: Callable[[Report], None]) -> Mapping[str, Any]:
        """Run the loop from the start or the last checkpoint; the last line of its log, which has the quality."""
        folder = self.out / folder_name(row)
        torch.manual_seed(recipe.seed)
        make_discriminator = find_preset(row.preset).discriminator
        train(
            self.network_of(row),
            recipe,
            self.data,
            self.budget.length,
            folder,
            discriminator=make_discriminator() if make_discriminator and recipe.adversarial else None,
            perceptual=self.perceptual if recipe.needs_vgg else None,
            resume=True,
            workers=self.workers,
            threads=self.threads,
            schedule=Schedule(validate_every=_NEVER),
            on_report=on_report,
        )
        last: Mapping[str, Any] = json.loads((folder / LOG_FILE).read_text().splitlines()[-1])
        return last

    def _recipe(self, row: Row) -> tuple[Recipe, str]:
        recipe = recipe_of(row.preset)
        recipe = replace(recipe, **self.budget.overrides)
        if row.seed is not None:
            recipe = replace(recipe, seed=row.seed)
        if row.adversarial is not None:
            recipe = recipe.with_adversarial(row.adversarial)
        if recipe.needs_vgg and self.perceptual is None:
            return recipe.with_content("l1"), _WITHOUT_VGG
        return recipe, ""

    def _options(self, row: Row) -> dict[str, OptionValue]:
        asked = parse_options(row.preset, self.budget.options)
        for name in asked.keys() & row.options.keys():
            raise BadInput(f"--set {name}: that is what the table varies; leave it out")
        return {**asked, **row.options}


def folder_name(row: Row) -> str:
    """Where a row is trained: its name in small letters and hyphens."""
    return re.sub(r"\W+", "-", row.name).strip("-").lower()


def _read_result(path: Path, settings: Mapping[str, object]) -> Result:
    found = json.loads(path.read_text())
    if found["settings"] != settings:
        raise BadInput(f"{path.parent} holds a row of other settings; choose another folder, or delete it")
    return Result(**{**found["result"], "quality": Quality(**found["result"]["quality"])})
