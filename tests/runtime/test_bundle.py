"""A bundle with one byte changed anywhere is refused, and the message names the file."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from unblur.runtime.errors import BundleError, SpecMismatch
from unblur.runtime.model.bundle import (
    MANIFEST,
    MANIFEST_SHA256,
    BundleManifest,
    FileEntry,
    Golden,
    Variant,
    read_bundle,
    seal_bundle,
)
from unblur.runtime.spec import ModelSpec

SPEC = ModelSpec("lprn", "lprn-n", steps=6, multiple_of=16, receptive_field=400, pooling="local")
DRAFT = BundleManifest(
    name="lprn-n",
    spec=SPEC,
    created="2026-11-21T00:00:00Z",
    versions={"unblur": "0.1.0"},
    variants=(Variant("fp32", 6, "fp32.onnx"), Variant("fp32", 3, "fp32-3.onnx"), Variant("int8", 6, "int8.onnx")),
    golden=(Golden("fp32", 6, "golden/input.npy", "golden/fp32-6.npy"),),
)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "x.unblur"
    (folder / "golden").mkdir(parents=True)
    for name in ("fp32.onnx", "fp32-3.onnx", "int8.onnx", "golden/input.npy", "golden/fp32-6.npy"):
        (folder / name).write_bytes(name.encode() * 20)
    (folder / "empty").touch()
    seal_bundle(folder, DRAFT)
    return folder


def reseal(folder: Path, text: str) -> None:
    """Replace the manifest and its hash, as someone who edits a bundle by hand could."""
    (folder / MANIFEST).write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / MANIFEST_SHA256).write_text(f"{digest}  {MANIFEST}\n")


def test_what_was_sealed_is_read(sealed: Path) -> None:
    bundle = read_bundle(sealed)
    assert replace(bundle.manifest, files={}) == DRAFT
    assert sorted(bundle.manifest.files) == [
        "empty",
        "fp32-3.onnx",
        "fp32.onnx",
        "golden/fp32-6.npy",
        "golden/input.npy",
        "int8.onnx",
    ]


def test_sealing_is_reproducible(sealed: Path) -> None:
    before = (sealed / MANIFEST).read_bytes()
    seal_bundle(sealed, DRAFT)
    assert (sealed / MANIFEST).read_bytes() == before


def test_one_byte_changed_anywhere_is_refused(sealed: Path) -> None:
    rng = np.random.default_rng(0)
    for file in sorted(path for path in sealed.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        positions = {0, len(whole) - 1, *rng.integers(0, max(len(whole), 1), 60).tolist()} if whole else set()
        for position in positions:
            damaged = bytearray(whole)
            damaged[position] ^= 1 << int(rng.integers(8))
            file.write_bytes(damaged)
            with pytest.raises(BundleError, match=f"{file.name}.* (is|or .* is) altered"):
                read_bundle(sealed)
        file.write_bytes(whole)
    read_bundle(sealed)


def test_one_byte_more_or_less_is_refused(sealed: Path) -> None:
    for file in sorted(path for path in sealed.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        for changed in (whole + b"\n", whole[:-1]):
            if changed == whole:
                continue
            file.write_bytes(changed)
            with pytest.raises(BundleError, match=f"{file.name} (has|or|is altered)"):
                read_bundle(sealed)
        file.write_bytes(whole)


def test_each_file_is_needed(sealed: Path) -> None:
    for file in sorted(path for path in sealed.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        file.unlink()
        with pytest.raises(BundleError, match=rf"{file.name} is missing|it has no bundle\.json"):
            read_bundle(sealed)
        file.write_bytes(whole)


def test_an_extra_file_is_refused_but_engines_may_come(sealed: Path) -> None:
    (sealed / "engines").mkdir()
    (sealed / "engines/sm87.engine").write_bytes(b"built here")
    read_bundle(sealed)
    (sealed / "golden/extra.npy").touch()
    with pytest.raises(BundleError, match=r"golden/extra\.npy does not belong to the bundle; remove it"):
        read_bundle(sealed)


def test_links_are_refused(sealed: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.onnx"
    shutil.move(sealed / "fp32.onnx", target)
    (sealed / "fp32.onnx").symlink_to(target)
    with pytest.raises(BundleError, match=r"fp32\.onnx is a link, expected a file"):
        read_bundle(sealed)


@pytest.mark.parametrize("where", ["initializer", "attribute"])
def test_weights_that_lie_elsewhere_are_refused(tiny_bundle: Path, tmp_path: Path, where: str) -> None:
    """Unchecked, and wherever the file says: here beside the bundle."""
    proto = onnx.load(tiny_bundle / "fp32.onnx")
    tensor = proto.graph.initializer[0]
    (tmp_path / "secret").write_bytes(tensor.raw_data)
    if where == "attribute":
        proto.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
        del proto.graph.initializer[0]
        tensor = proto.graph.node[0].attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (tiny_bundle / "fp32.onnx").write_bytes(proto.SerializeToString())
    seal_bundle(tiny_bundle, read_manifest(tiny_bundle))
    with pytest.raises(BundleError, match=r"fp32\.onnx keeps weights in \.\./secret, outside the bundle"):
        read_bundle(tiny_bundle)


def read_manifest(bundle: Path) -> BundleManifest:
    return BundleManifest.from_json((bundle / MANIFEST).read_bytes(), where=str(bundle))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "c:\\x", "a//b", "./a", MANIFEST])
def test_paths_outside_the_bundle_are_refused(sealed: Path, name: str) -> None:
    manifest = read_bundle(sealed).manifest
    entry = FileEntry("0" * 64, 0)
    reseal(sealed, replace(manifest, files={**manifest.files, name: entry}).to_json())
    with pytest.raises(BundleError, match="which is not a path inside the bundle"):
        read_bundle(sealed)


def test_variants_are_chosen_by_precision_and_steps(sealed: Path) -> None:
    bundle = read_bundle(sealed)
    assert bundle.variant("fp32").file == "fp32.onnx"
    assert bundle.variant("fp32", 3).file == "fp32-3.onnx"
    with pytest.raises(SpecMismatch, match="no fp16 variant at 6 steps; it has fp32 at 6, fp32 at 3, int8 at 6"):
        bundle.variant("fp16")


def test_golden_belongs_to_one_variant(sealed: Path) -> None:
    bundle = read_bundle(sealed)
    assert bundle.golden(bundle.variant("fp32")) == DRAFT.golden[0]
    assert bundle.golden(bundle.variant("fp32", 3)) is None


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not a bundle: it has no bundle\.json"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema", 2, "schema 2, this version of unblur reads 1; deploy the bundle again"),
        ("created", 5, "bundle.json: created is 5, expected str"),
        ("surprise", 5, "bundle.json: surprise is not a field of this version"),
        ("variants", [], r"lists the variants \[\], expected at least one"),
    ],
)
def test_a_manifest_of_another_shape(sealed: Path, field: str, value: object, message: str) -> None:
    raw = json.loads((sealed / MANIFEST).read_text())
    reseal(sealed, json.dumps(raw | {field: value}))
    with pytest.raises(BundleError, match=message):
        read_bundle(sealed)


def test_a_manifest_that_is_not_json(sealed: Path) -> None:
    reseal(sealed, "{")
    with pytest.raises(BundleError, match="deploy the bundle again"):
        read_bundle(sealed)


def test_sealing_checks_what_the_manifest_refers_to(sealed: Path) -> None:
    (sealed / "int8.onnx").unlink()
    with pytest.raises(BundleError, match=r"refers to int8\.onnx, which is not among the files"):
        seal_bundle(sealed, DRAFT)
