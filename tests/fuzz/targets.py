"""What is attacked: every kind of file and text that comes from outside, through what reads it."""

import io
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import av
import foreign_networks
import numpy as np
import torch
from engine_workshop import Workshop
from hypothesis.strategies import SearchStrategy
from made_up_profile import full_profile
from PIL import Image
from safetensors.torch import save_file
from tiny_network import TinyNetwork

from tests.fuzz.contract import BrokenContract, call
from tests.fuzz.mutations import mutated, mutated_json
from tests.runtime.conftest import make_bundle, make_frame_of
from unblur.calibration.trt_cache import CACHE_FILE
from unblur.export.deployment import CALIBRATION_TABLE
from unblur.export.report.data import REPORT_JSON, BundleReport
from unblur.runtime.errors import UnblurError
from unblur.runtime.images import write_image
from unblur.runtime.media.open_media import open_source
from unblur.runtime.media.url import takes_credentials, with_credentials, without_secrets
from unblur.runtime.model.bundle import MANIFEST, MANIFEST_SHA256, read_bundle
from unblur.runtime.model.open_model import find_model
from unblur.runtime.preview.requests import read_request
from unblur.runtime.profile.document import read_profile
from unblur.runtime.spec import SPEC_KEY, ModelSpec
from unblur.runtime.tensorrt.engine_file import record_path
from unblur.train.checkpoint import load_checkpoint, load_state
from unblur.train.recipe import RECIPES

_SHIPPED = find_model("lprn-n")


class Place:
    """Good files to attack with and to be attacked, in a folder of their own. out: where outputs go."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.out.mkdir()
        self.image = folder / "image.png"
        write_image(self.image, make_frame_of(40, 48))
        self.model = TinyNetwork().write(folder / "model.onnx")

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def call(self, *arguments: object) -> None:
        """A command that has to keep the contract; what it wrote is removed."""
        call(*arguments, out=self.out).check()
        for path in self.out.iterdir():
            path.unlink()

    def restore(self, model: Path, source: Path, *options: object) -> None:
        sink = self.out / f"sharp{source.suffix if source.suffix == '.mp4' else '.png'}"
        self.call("run", model, "--source", source, "--sink", sink, "--threads", 1, *options)


Seeds = Sequence[bytes]


@dataclass(frozen=True)
class Target:
    """seeds: good files, made in a place. attack: gives one file to all that reads such files, and raises what must
    not happen. strategy: how files are made of the seeds.
    """

    seeds: Callable[[Place], Seeds]
    attack: Callable[[Place, bytes], None]
    strategy: Callable[[Seeds], SearchStrategy[bytes]] = mutated


def refuse(read: Callable[[], object]) -> None:
    """Call what may raise errors of ours alone, which the command line shows as one line."""
    try:
        read()
    except UnblurError:
        return


def _onnx_seeds(place: Place) -> Seeds:
    int8 = TinyNetwork("int8").write(place.folder / "int8.onnx")
    networks = [foreign_networks.plain(), foreign_networks.layer_norm()]
    own = [place.model.read_bytes(), int8.read_bytes()]
    return [*own, *(network.SerializeToString() for network in networks)]


def _attack_onnx(place: Place, data: bytes) -> None:
    path = place.file("attack.onnx", data)
    place.call("lint", path)
    place.restore(path, place.image)


def _table_seeds(place: Place) -> Seeds:
    return [(_SHIPPED / CALIBRATION_TABLE).read_bytes()]


def _attack_table(place: Place, data: bytes) -> None:
    path = place.file("attack.json", data)
    place.call("table", "to-cache", path, "-o", place.out / "cache")
    place.call("table", "diff", path, path)
    place.call("table", "bind", path, "--model", _SHIPPED / "fp32.onnx", "-o", place.out / "bound.json")


def _cache_seeds(place: Place) -> Seeds:
    return [(_SHIPPED / CACHE_FILE).read_bytes()]


def _attack_cache(place: Place, data: bytes) -> None:
    path = place.file("attack.cache", data)
    place.call("table", "from-cache", path, "--model", _SHIPPED / "fp32.onnx", "-o", place.out / "table.json")


def _manifest_seeds(place: Place) -> Seeds:
    return [(make_bundle(place.folder / "attack.unblur") / MANIFEST).read_bytes()]


def _attack_manifest(place: Place, data: bytes) -> None:
    """With the hash that fits it: what is damaged otherwise is refused before it is parsed."""
    bundle = place.folder / "attack.unblur"
    (bundle / MANIFEST).write_bytes(data)
    (bundle / MANIFEST_SHA256).write_text(f"{sha256(data).hexdigest()}  {MANIFEST}\n")
    refuse(lambda: read_bundle(bundle))
    place.restore(bundle, place.image, "--precision", "fp32", "--device", "cpu")


def _record_seeds(place: Place) -> Seeds:
    (place.folder / "engines").mkdir()
    return [record_path(Workshop(place.folder / "engines").build()).read_bytes()]


def _attack_record(place: Place, data: bytes) -> None:
    engine = next((place.folder / "engines").glob("*.engine"))
    record_path(engine).write_bytes(data)
    place.call("doctor", engine, "--json")
    place.restore(engine, place.image)


_PROGRESS = json.dumps({"iteration": 1, "elapsed_s": 1.0, "threads": 1})


def _checkpoint_seeds(place: Place) -> Seeds:
    """The texts in its header, which is what is parsed here; safetensors reads the rest."""
    spec = ModelSpec(
        "lprn", "lprn-n", 2, 4, 20, "none", {"width": 8, "blocks": 1, "steps": 2, "base": "plain", "grid": 4}
    )
    texts = {SPEC_KEY: spec.to_json(), "unblur.recipe": RECIPES["lprn"].to_json(), "unblur.progress": _PROGRESS}
    return [json.dumps({name: json.loads(text) for name, text in texts.items()}).encode()]


def _as_utf8(text: str) -> str:
    """What safetensors can write of it: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode()


def _attack_checkpoint(place: Place, data: bytes) -> None:
    texts = json.loads(data) if data.count(b"[") < 1000 else {SPEC_KEY: data.decode()}
    named = texts.items() if isinstance(texts, dict) else ()
    header = {name: value if isinstance(value, str) else json.dumps(value) for name, value in named}
    header = {_as_utf8(name): _as_utf8(value) for name, value in header.items()}
    path = place.folder / "attack.safetensors"
    save_file({"ema.head.weight": torch.zeros(1)}, path, header)
    refuse(lambda: load_checkpoint(path))
    refuse(lambda: load_state(path))


_IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")


def _image_seeds(place: Place) -> Seeds:
    return [_image(mode, name) for mode in ("RGB", "P", "L") for name in _IMAGE_FORMATS]


def _image(mode: str, format_name: str) -> bytes:
    image, buffer = Image.fromarray(make_frame_of(24, 32)).convert(mode), io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6  # orientation
    keeps_palette = format_name not in ("JPEG", "WEBP", "PPM") or mode != "P"
    (image if keeps_palette else image.convert("RGB")).save(buffer, format_name, exif=exif)
    return buffer.getvalue()


def _attack_image(place: Place, data: bytes) -> None:
    """Its name says PNG; what it is, its bytes say."""
    place.restore(place.model, place.file("attack.png", data))


_VIDEO_FORMATS = (("mp4", "libx264"), ("matroska", "libx264"), ("avi", "mpeg4"), ("mpegts", "mpeg2video"))
_VIDEO_FORMATS += (("flv", "flv"), ("webm", "libvpx"), ("ogg", "libtheora"))


def _video_seeds(place: Place) -> Seeds:
    return [_video(place.folder / "seed", *each) for each in _VIDEO_FORMATS if each[1] in av.codecs_available]


def _video(path: Path, format_name: str, codec: str) -> bytes:
    with av.open(str(path), "w", format=format_name) as container:
        container.metadata["title"] = "seed"
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for index in range(4):
            frame = np.ascontiguousarray(np.roll(make_frame_of(32, 48), 4 * index, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


def _attack_video(place: Place, data: bytes) -> None:
    place.restore(place.model, place.file("attack.mp4", data))


SECRET = "S3cr3t"
_ADDRESSES = (
    "rtsp://admin:S3cr3t@camera/1",
    "rtsp://a:p/S3cr3t@h:554/x?y=1",
    "RTSP:a:S3cr3t@h",
    "https://u:S3cr3t@[::1]:8/a?pw=S3cr3t&sig=S3cr3t",
    "rtmp://h/live/S3cr3t",
    "test://moving?size=32x48&fps=1/2&blur=2&frames=2&seed=1",
    "v4l2:///dev/video9?size=720x1280&fps=30",
    "nothing://x",
)


def _address_seeds(place: Place) -> Seeds:
    return [text.encode() for text in _ADDRESSES]


def _attack_address(place: Place, data: bytes) -> None:
    """Nothing is connected to: addresses of networks are only shown, and given credentials."""
    text = data.decode("utf-8", "surrogateescape")
    if text in _ADDRESSES:
        _check_hidden(text)
    if SECRET not in text and takes_credentials(text):
        refuse(lambda: _check_hidden(with_credentials(text, f"user:{SECRET}")))
    if text.split(":")[0].lower() in ("test", "v4l2", "nothing") or ":" not in text:
        with suppress(OSError):  # a name too long: `main` says so
            refuse(lambda: open_source(text, max_pixels=10_000).__exit__(None, None, None))


def _check_hidden(address: str) -> None:
    if SECRET in (shown := without_secrets(address)):
        raise BrokenContract(f"{address} is shown as {shown}")


def _json_seeds(place: Place) -> Seeds:
    profile = json.dumps(full_profile().to_json()).encode()
    spec = ModelSpec("a", "b", 1, 1, 1, "none").to_json().encode()
    report = json.dumps({**json.loads((_SHIPPED / REPORT_JSON).read_bytes()), "images": []}).encode()
    return [profile, spec, report, b'{"highest_rung": 3}', b'{"deadline_ms": 20.5}']


def _attack_json(place: Place, data: bytes) -> None:
    path, text = place.file("attack.json", data), data.decode()
    refuse(lambda: read_request(text))
    refuse(lambda: ModelSpec.from_json(text, where="it"))
    refuse(lambda: BundleReport.from_json(data, where="it"))
    refuse(lambda: read_profile(path))


TARGETS: dict[str, Target] = {
    "onnx": Target(_onnx_seeds, _attack_onnx),
    "tables": Target(_table_seeds, _attack_table, mutated_json),
    "table-bytes": Target(_table_seeds, _attack_table),
    "caches": Target(_cache_seeds, _attack_cache),
    "manifests": Target(_manifest_seeds, _attack_manifest, mutated_json),
    "records": Target(_record_seeds, _attack_record, mutated_json),
    "checkpoints": Target(_checkpoint_seeds, _attack_checkpoint, mutated_json),
    "images": Target(_image_seeds, _attack_image),
    "videos": Target(_video_seeds, _attack_video),
    "addresses": Target(_address_seeds, _attack_address),
    "json": Target(_json_seeds, _attack_json, mutated_json),
}
