"""A foreign .h5 is code-like input: it is first loaded in a limited child, and becomes a version only if it passes.

Run as `python -m daemon.models.vetting CONFIG FILE`, the child prints what it found as JSON.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daemon.clock import timestamp
from daemon.config import Settings, load_settings
from daemon.files import file_sha256, sync_folder, write_durably
from daemon.models.registry import Registry, RegistryError

MAX_BYTES = 64 * 2**20  # of the file; the shipped model has 0.4 MB
ADDRESS_SPACE = 16 * 2**30  # bytes; importing TensorFlow alone takes several
CPU_SECONDS = 300
MAX_WRITTEN = 2**20  # bytes a file; Python tries its folder for temporary files out
WALL_SECONDS = 600


def adopt(registry: Registry, settings: Settings, file: Path) -> str:
    """Make a version of a foreign .h5, after it passed in a limited child.

    Returns:
        The version's name.

    Raises:
        RegistryError: it did not pass; the message says why.

    """
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise RegistryError(f"{file}: expected at most {MAX_BYTES} bytes. Received: {size}.")
    with registry.training():  # nobody else takes the next name meanwhile
        name = registry.next_name()
        copy = registry.folder / f"{name}.tmp.h5"
        try:
            shutil.copyfile(file, copy)  # what is vetted is what is kept, whatever becomes of the original
            found = _vet_in_child(settings, copy, file)
            manifest = {
                "schema": 1,
                "version": name,
                "sha256": file_sha256(copy),
                "bytes": size,
                "created_at": timestamp(time.time()),
                "training": {"origin": f"adopted from {file.name}", "dataset_sha256": found.pop("dataset_sha256")},
                **found,
            }
            copy.replace(registry.folder / f"{name}.h5")
        finally:
            copy.unlink(missing_ok=True)
        sync_folder(registry.folder)
        write_durably(registry.folder / f"{name}.json", json.dumps(manifest, indent=2).encode() + b"\n")
    return name


def _vet_in_child(settings: Settings, copy: Path, file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "daemon.models.vetting", str(settings.file), str(copy)]
    try:
        child = subprocess.run(command, capture_output=True, timeout=WALL_SECONDS, check=False)  # noqa: S603 -- ourselves
    except subprocess.TimeoutExpired as error:
        raise RegistryError(f"{file}: expected a model that loads within {WALL_SECONDS} s. Received: no answer.") from error
    if child.returncode != 0:
        words = child.stderr.decode(errors="replace").strip().splitlines()
        reason = words[-1].replace(str(copy), str(file)) if words else "no words"
        if child.returncode < 0:
            reason = f"loading it killed its process with {signal.Signals(-child.returncode).name}; {reason}"
        raise RegistryError(reason)
    found: dict[str, Any] = json.loads(child.stdout)
    accuracy, expected = found["holdout"]["accuracy"], settings.gate.canary_accuracy
    if accuracy < expected:
        raise RegistryError(
            f"{file}: expected at least {expected:.2%} right on the hold-out ([gate] canary_accuracy). "
            f"Received: {accuracy:.2%}."
        )
    return found


def main(arguments: Sequence[str]) -> int:
    """The child: limits first, then Keras."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_WRITTEN, MAX_WRITTEN))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from daemon.models.backend import keras
    from daemon.models.live import ModelError, read_model
    from daemon.training.dataset import load_base_data
    from daemon.training.evaluation import evaluate

    settings, file = load_settings(Path(arguments[0])), Path(arguments[1])
    try:
        model = read_model(file)
    except ModelError as error:
        print(str(error).replace("\n", " "), file=sys.stderr)
        return 1
    base = load_base_data(settings.training.dataset, settings.root, settings.inbox)
    result = evaluate(model, base.test)
    found = {
        "keras": keras.__version__,
        "parameters": model.count_params(),
        "dataset_sha256": base.sha256,
        "holdout": {
            "images": len(base.test),
            "loss": round(result.loss, 6),
            "accuracy": round(result.accuracy, 6),
            "recall": [round(value, 6) for value in result.recall],
        },
    }
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
