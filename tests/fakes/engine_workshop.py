"""Engine files for a device in memory, and what opens them there."""

from dataclasses import dataclass, replace
from pathlib import Path

from fake_cuda import ADA, FakeCuda
from fake_tensorrt import EngineText, FakeTensorRT

from unblur.runtime.model.bundle import read_bundle
from unblur.runtime.spec import ModelSpec, Precision
from unblur.runtime.tensorrt.cuda_driver import Device
from unblur.runtime.tensorrt.engine_file import (
    BuildOptions,
    EngineIdentity,
    EngineRecord,
    Profile,
    hash_of,
    this_platform,
    write_engine,
)
from unblur.runtime.tensorrt.engine_runner import EngineRunner
from unblur.runtime.tensorrt.trt import TensorRT

PLAIN = BuildOptions()
SMALL, LARGE = (1, 3, 32, 48), (1, 3, 64, 96)
DYNAMIC = Profile((1, 3, 16, 16), SMALL, (2, 3, 64, 96))
FITS_GOLDEN = Profile((1, 3, 16, 16), (1, 3, 96, 160), (1, 3, 128, 160))
SPEC = ModelSpec("lprn", "tiny", 2, multiple_of=16, receptive_field=20, pooling="none")


@dataclass
class Workshop:
    """Builds engine files for one device, and opens them on it."""

    folder: Path
    device: Device = ADA
    seed: int | None = None
    version: str = "10.3.0"

    def __post_init__(self) -> None:
        self.cuda = FakeCuda(self.device, seed=self.seed)
        self.module = FakeTensorRT(self.cuda, self.version)
        self.trt = TensorRT(self.module, "tensorrt")

    def build(
        self,
        *profiles: Profile,
        options: BuildOptions = PLAIN,
        precision: Precision = "fp16",
        steps: int = SPEC.steps,
        onnx_sha256: str = "0" * 64,
        calibration_sha256: str | None = None,
        spec: ModelSpec = SPEC,
        **text: object,
    ) -> Path:
        """text: what the engine does, see EngineText."""
        profiles = profiles or (DYNAMIC,)
        shapes = tuple((profile.minimum, profile.maximum) for profile in profiles)
        engine = EngineText(shapes, **text).to_bytes()  # type: ignore[arg-type]
        identity = EngineIdentity(
            flavour="tensorrt",
            version=self.module.__version__,
            sm=self.device.sm,
            gpu=self.device.name,
            platform=this_platform(),
            precision=precision,
            steps=steps,
            profiles=profiles,
            options=options,
            onnx_sha256=onnx_sha256,
            calibration_sha256=calibration_sha256,
        )
        record = EngineRecord(
            identity, replace(spec, steps=steps), "blurred", "restored", hash_of(engine), len(engine), 1.5
        )
        return write_engine(self.folder, engine, record)

    def build_variant(
        self,
        precision: Precision = "fp16",
        profile: Profile = FITS_GOLDEN,
        *,
        steps: int = SPEC.steps,
        **text: object,
    ) -> Path:
        """An engine of a variant of the bundle whose folder of engines this is; it computes what that variant does
        unless `text` says otherwise."""
        bundle = self.folder.parent
        file = f"{precision}.onnx" if steps == SPEC.steps else f"{precision}-{steps}.onnx"
        sha256 = read_bundle(bundle).manifest.files[file].sha256
        given = {"gain": 1.0, "bias": 0.0, "onnx": str(bundle / file), "onnx_sha256": sha256, **text}
        return self.build(profile, precision=precision, steps=steps, **given)  # type: ignore[arg-type]

    def open(self, engine: Path | None = None, *, graph: bool = True) -> EngineRunner:
        return EngineRunner(engine or self.build(), cuda=self.cuda, trt=self.trt, graph=graph)

    @property
    def leaks(self) -> int:
        return len(self.cuda.live) + len(self.module.live)
