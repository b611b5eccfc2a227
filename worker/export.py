"""A snapshot's generator as an ONNX file, for programs that know neither PyTorch nor Ganvil.

    python -m worker.export SNAPSHOT_DIR OUT.onnx

`z` float32 [n, z_dim] and, where the generator is conditional, `labels` int64 [n] give `images` float32 [n, C, H, W] in [-1, 1],
for any n. The file's metadata say what it was made from. No file is left that ONNX Runtime reads otherwise than PyTorch does.
"""

import argparse
import json
import os
import sys
import threading
import warnings
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.generator import GeneratorInfo, LoadedGenerator, ModelFileError, latents, load_generator
from worker.faults import without_folders

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from torch.onnx import ONNXProgram

OPSET = 18  # what the exporter writes by itself, and what runtimes have read since 2023
TOLERANCE = 1e-4  # of an image's values in [-1, 1]: a fiftieth of a step of 8 bits
BATCH = 7  # of the comparison, after a batch of one: no size that the export has seen
MOST_BATCHES = 64

NEEDS = ("onnx", "onnxscript", "onnxruntime")
# The exit status that says what the last line of the output is about; 1 and 2 are Python's own.
FAILED = 3
NOT_INSTALLED = 4

OUT_OF_MEMORY_SCORE = "500"  # of 1000: when memory runs out the kernel ends this program, and not the one that serves


class ExportError(Exception):
    """A generator that cannot be exported; the message is for people."""


class _Clamped(nn.Module):
    """The generator, with its images kept in [-1, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        images: Tensor = self.network(z, labels)
        return images.clamp(-1, 1)


def export_onnx(snapshot: Path, out: Path) -> float:
    """Write the generator of a snapshot folder to `out`; the largest difference that was found, which is in its metadata too.

    Raises ModelFileError, and ExportError for a network that ONNX cannot express or that comes out different.
    """
    generator = load_generator(snapshot)
    program = _convert(generator)
    difference = largest_difference(generator, program.model_proto.SerializeToString())
    if not difference <= TOLERANCE:  # NaN is no less a failure
        raise ExportError(
            f"ONNX Runtime gives images that differ from PyTorch's by up to {difference:.3g}, and {TOLERANCE:.0e} is allowed."
        )
    program.model.metadata_props.update(_metadata(generator.info, difference))
    program.save(out, external_data=False)
    return difference


def _convert(generator: LoadedGenerator) -> "ONNXProgram":
    """The program without a word of where it was made. Raises ExportError."""
    from onnxscript.ir.passes.common import ClearMetadataAndDocStringPass
    from torch.onnx import errors

    inputs = {"z": torch.zeros(2, generator.info.z_dim)}
    if generator.info.conditional:
        inputs["labels"] = torch.zeros(2, dtype=torch.int64)
    network = _Clamped(generator._network).eval()  # noqa: SLF001 - all others want its samples and not itself
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about its own parts: what it made is judged by its images
            program = torch.onnx.export(
                network,
                kwargs=inputs,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=["images"],
                dynamic_shapes={name: {0: "n"} for name in inputs},
                external_data=False,
                verbose=False,
            )
    except errors.OnnxExporterError as error:
        raise ExportError(f"PyTorch cannot express this network in ONNX: {error}") from error
    assert program is not None, "dynamo=True gives a program"
    ClearMetadataAndDocStringPass()(program.model)  # each node tells the folders of this machine
    return program


def largest_difference(generator: LoadedGenerator, model: bytes) -> float:
    """Between the images of an ONNX file in ONNX Runtime, on one CPU thread, and ours, for seeds from 0 on.

    In a batch of one and then of `BATCH`, until every class had its turn, or `MOST_BATCHES` of classes that are evenly spread.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    classes = len(generator.info.classes) if generator.info.conditional else 0
    return max(_difference(generator, session, seeds) for seeds in _batches(classes))


def _batches(classes: int) -> list[npt.NDArray[np.int64]]:
    """The seeds of each batch; a seed below the number of classes stands for the class with its number."""
    needed = len(range(1, max(classes, 2), BATCH))
    seeds = np.arange(1, 1 + needed * BATCH)
    if needed >= MOST_BATCHES:
        needed = MOST_BATCHES - 1
        seeds = np.linspace(1, classes - 1, needed * BATCH).astype(np.int64)
    return [np.zeros(1, np.int64), *np.split(seeds, needed)]


def _difference(generator: LoadedGenerator, session: "InferenceSession", seeds: npt.NDArray[np.int64]) -> float:
    z = latents(generator.info, seeds.tolist())
    labels = seeds % len(generator.info.classes) if generator.info.conditional else None
    ours = generator.forward(z, labels).clip(-1, 1)
    given = {"z": z} if labels is None else {"z": z, "labels": labels}
    (theirs,) = session.run(["images"], given)
    if theirs.shape != ours.shape:
        raise ExportError(f"ONNX Runtime gives images of the shape {theirs.shape}, and PyTorch {ours.shape}.")
    return float(np.abs(theirs - ours).max())


def _metadata(info: GeneratorInfo, difference: float) -> dict[str, str]:
    return {
        "family": info.family,
        "classes": json.dumps(info.classes, ensure_ascii=False),  # in label order
        "dataset_sha256": info.dataset.sha256,
        "generator_sha256": info.sha256,
        "ganvil_version": version("ganvil"),
        "max_abs_difference": f"{difference:.3g}",
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker.export", description="Export a generator to ONNX.")
    parser.add_argument("snapshot", type=Path, metavar="SNAPSHOT_DIR", help="with generator.safetensors and model.json")
    parser.add_argument("out", type=Path, metavar="OUT", help="the ONNX file to write")
    parser.add_argument("--stop-fd", type=int, metavar="N", help="end when this inherited pipe closes")
    options = parser.parse_args(arguments)
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        return _say(
            f"ONNX export needs more packages than are installed: pip install {' '.join(missing)}", NOT_INSTALLED
        )
    if options.stop_fd is not None:
        threading.Thread(target=_end_with, args=(options.stop_fd,), daemon=True).start()
    torch.set_num_threads(1)
    try:
        difference = export_onnx(options.snapshot, options.out)
    except (ExportError, ModelFileError) as error:
        return _say(without_folders(" ".join(str(error).split())), FAILED)
    print(f"Wrote {options.out}; largest difference from PyTorch: {difference:.3g}")  # noqa: T201 - a program's stdout
    return 0


def _say(message: str, status: int) -> int:
    print(message, file=sys.stderr)  # noqa: T201 - a program's stderr
    return status


def _end_with(fd: int) -> None:
    """Ends this process at the end of the pipe, which its parent holds: nothing here stops by itself between two steps."""
    while os.read(fd, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    with suppress(OSError):  # this is not Linux
        Path("/proc/self/oom_score_adj").write_text(OUT_OF_MEMORY_SCORE, encoding="ascii")
    sys.exit(main())
