"""The ablations train every row alike, keep what is done, and put the published figures beside ours."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.ablations.__main__ import main
from benchmarks.ablations.ablate import Ablation, Budget, folder_name
from benchmarks.ablations.tables import TABLES, Row
from unblur.runtime.errors import BadInput
from unblur.runtime.metrics import psnr_db
from unblur.runtime.quality.pairs import find_pairs, read_pair
from unblur.train.data import HoldOut, TrainingData, open_training_data
from unblur.train.loop import Length
from unblur.train.networks import PRESETS

SMALL = (
    "--set",
    "width=8",
    "--set",
    "blocks=1",
    "--set",
    "grid=4",
    "--crop",
    "32",
    "--batch",
    "1",
    "--workers",
    "0",
)


@pytest.fixture
def data(pairs_folder: Path) -> TrainingData:
    return open_training_data([pairs_folder], hold_out=HoldOut(1))


@pytest.fixture
def ablate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """stdout of `python -m benchmarks.ablations ...`; an error of ours is raised."""

    def call(*arguments: object) -> str:
        app = typer.Typer()
        app.command()(main)
        typed = [str(argument) for argument in arguments]
        monkeypatch.setattr("sys.argv", ["ablations", *typed])
        done = CliRunner().invoke(app, typed)
        if done.exception is not None:
            raise done.exception
        return done.stdout

    return call


def small(data: TrainingData, out: Path, iterations: int = 2) -> Ablation:
    overrides = {"crop": 32, "batch": 1, "seed": 3}
    return Ablation(data, Budget(Length(iterations), ("width=8", "grid=4", "blocks=1"), overrides), out, workers=0)


def test_a_table_as_typed(ablate: Callable[..., str], pairs_folder: Path, tmp_path: Path) -> None:
    arguments = ("lprn-steps", "--data", pairs_folder, "-o", tmp_path / "out", "--hold-out", 1, "--iterations", 2)
    document = json.loads(ablate(*arguments, *SMALL, "--json"))
    assert document["command"].startswith("python -m benchmarks.ablations lprn-steps --data ")
    assert [row["name"] for row in document["rows"]] == ["5 steps", "6 steps", "7 steps"]
    assert [row["published"]["psnr_db"] for row in document["rows"]] == ["30.17", "30.21", "30.21"]
    assert {row["parameters"] for row in document["rows"]} == {document["rows"][0]["parameters"]}
    gflops = [row["gflop_720p"] for row in document["rows"]]
    assert gflops == sorted(set(gflops))
    assert all(row["iterations"] == 2 for row in document["rows"])

    held_out = find_pairs(pairs_folder)[-1]
    assert document["blurred"]["psnr_db"] == pytest.approx(psnr_db(*read_pair(held_out)))
    text = (tmp_path / "out/lprn-steps.md").read_text()
    assert "every row was trained for 2 iterations on pairs and measured on the 1" in text
    gain_db = document["rows"][0]["quality"]["psnr_db"] - document["blurred"]["psnr_db"]
    assert f"| {gain_db:+.2f} | 30.17 |  | 20.064 Mb |" in text
    assert json.loads((tmp_path / "out/lprn-steps.json").read_text()) == document


def test_a_row_that_is_done_is_not_trained_again(data: TrainingData, tmp_path: Path) -> None:
    row = Row("2 steps", "lprn", {"steps": 2})
    trained: list[object] = []
    first = small(data, tmp_path).result_of(row, trained.append)
    assert trained
    assert small(data, tmp_path).result_of(row, lambda _: pytest.fail("trained again")) == first
    (tmp_path / folder_name(row) / "result.json").unlink()  # killed after its last iteration
    assert small(data, tmp_path).result_of(row, lambda _: pytest.fail("trained again")) == first


def test_a_row_of_other_settings_is_refused(data: TrainingData, tmp_path: Path) -> None:
    row = Row("2 steps", "lprn", {"steps": 2})
    small(data, tmp_path).result_of(row)
    with pytest.raises(
        BadInput, match="2-steps holds a row of other settings; choose another folder, or delete it"
    ):
        small(data, tmp_path, iterations=3).result_of(row)


def test_every_row_starts_from_the_same_seed(data: TrainingData, tmp_path: Path) -> None:
    row, twin = Row("a", "lprn", {"steps": 2}), Row("b", "lprn", {"steps": 2})
    results = [small(data, tmp_path).result_of(each) for each in (row, twin)]
    assert results[0].quality == results[1].quality


def test_a_perceptual_loss_without_its_weights_is_said(data: TrainingData, tmp_path: Path) -> None:
    ablation = Ablation(data, Budget(Length(1), (), {"crop": 256}), tmp_path)
    recipe, note = ablation._recipe(Row("DeblurGAN", "deblurgan"))
    assert ([term.kind for term in recipe.content], note) == (["l1"], "L1 in place of the perceptual loss")
    assert ablation._recipe(Row("LPRN", "lprn"))[1] == ""


@pytest.mark.parametrize("name", TABLES)
def test_tables_name_presets_and_rows_once(name: str) -> None:
    rows = TABLES[name].rows
    assert {row.preset for row in rows} <= set(PRESETS)
    assert len({folder_name(row) for row in rows}) == len(rows)


def test_bad_arguments(ablate: Callable[..., str], pairs_folder: Path, tmp_path: Path) -> None:
    rest = ("--data", pairs_folder, "--hold-out", 1, "--iterations", 1)
    with pytest.raises(BadInput, match=r"no table 'lprn-step', there are .*; did you mean 'lprn-steps'\?"):
        ablate("lprn-step", *rest, "-o", tmp_path / "out")
    with pytest.raises(BadInput, match="--set steps: that is what the table varies; leave it out"):
        ablate("lprn-steps", *rest, "-o", tmp_path / "out", "--set", "steps=3")
    with pytest.raises(BadInput, match=r"row 'no attention': grid is 3, expected 1, 2 or 4"):
        ablate("lprn-attention", *rest, "-o", tmp_path / "out", "--set", "grid=3")
    with pytest.raises(BadInput, match=r"cannot make the folder .*0\.png/x"):
        ablate("lprn-steps", *rest, "-o", pairs_folder / "blur/0.png/x")
    assert not list((tmp_path / "out").iterdir())
