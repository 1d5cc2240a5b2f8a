"""Install a wheel alone into an empty environment of this Python, and restore an image there as a user would.

python3.12 .ci/check_wheel.py dist/unblur-0.1.0-py3-none-any.whl
"""

import os
import platform
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

MOST_BUNDLE_BYTES = 22_000_000  # three precisions are 7 bytes a weight, and weights hardly compress

IMAGE = """
from pathlib import Path
import numpy as np
from unblur.runtime import write_image
write_image(Path("blurred.png"), np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))
"""


def main() -> None:
    wheel = Path(sys.argv[1]).resolve()
    bundles = bundle_bytes(wheel)
    if bundles > MOST_BUNDLE_BYTES:
        sys.exit(f"the bundles take {bundles:,} bytes of {wheel.name}; expected at most {MOST_BUNDLE_BYTES:,}")
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder, "venv"), with_pip=True)
        programs = Path(folder, "venv", "bin")
        run(folder, programs / "python", "-m", "pip", "install", "--quiet", wheel)
        run(folder, programs / "python", "-W", "error", "-c", IMAGE)
        run(folder, programs / "unblur", "run", "lprn-s", "--source", "blurred.png", "--sink", "restored.png")
        run(folder, programs / "unblur", "doctor")
        if not Path(folder, "restored.png").is_file():
            sys.exit("unblur run wrote no image")
    sizes = f"{wheel.stat().st_size:,} bytes, {bundles:,} of them bundles"
    print(f"{wheel.name}: {sizes}; runs on Python {platform.python_version()}")


def bundle_bytes(wheel: Path) -> int:
    """What the bundles take in the wheel, compressed."""
    with zipfile.ZipFile(wheel) as archive:
        return sum(member.compress_size for member in archive.infolist() if "/bundles/" in member.filename)


def run(folder: str, *command: object) -> None:
    """Run a command in `folder`, with none of the caller's modules on the path; an error ends the check."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)} exits with {done.returncode}:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
