"""A checkpoint becomes a model file that was compared with it, or no file."""

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import onnx

from engine.errors import ModelError, StoreError, UsageError
from engine.perceive.backends.choose import choose, open_runner
from engine.perceive.backends.runner import ModelFile, Request, Runner
from export.checkpoint import Checkpoint, load_checkpoint
from export.frames import NetworkInput, clip_frames, drawn_frames, shard_frames
from export.graph import contract_metadata, set_metadata, write_graph
from export.parity import LIMITS, Limits, Parity, check, measure
from export.quantise import quantise
from export.runners import TorchRunner
from export.tensorrt import compile_tensorrt
from learning.synthesis.sample import SIZE

TARGETS = ("onnx", "int8", "openvino", "tensorrt")
_SUFFIXES = {"openvino": ".xml", "tensorrt": ".pt2"}
_CALIBRATION_SEED, _PARITY_SEED = 11, 12


@dataclass(frozen=True)
class Options:
    """How to export.

    Attributes:
        name: name the engine reports.
        size: (h, w) of the image input, multiples of 32; smaller than in training is faster and sees less.
        data: folder of shards; calibration reads train_*, the parity check held_*.
        clips: folder of videos instead. With neither, drawn shapes are used.
        calibration_frames, parity_frames: how many of each.
        half: float16 instead of float32 (targets onnx and tensorrt).
        any_batch: a free batch, for several cameras at once (target onnx).
        calibration: how INT8 ranges follow from what was seen, see `export.calibrate`.
        keep: nodes that stay in fp32 besides the stem and the heads.
        min_mask_iou: replaces the target's limit of the mask IoU, None keeps it.
    """

    name: str = "compact"
    size: tuple[int, int] = SIZE
    data: Path | None = None
    clips: Path | None = None
    calibration_frames: int = 200
    parity_frames: int = 100
    half: bool = False
    any_batch: bool = False
    calibration: str = "percentile"
    keep: Collection[str] = ()
    min_mask_iou: float | None = None


def export(checkpoint_path: Path, target: str, out: Path, options: Options | None = None) -> Parity:
    """Write `out` and return how well it agrees with its network; leaves no file when it does not.

    Args:
        target: "onnx" (fp32, or fp16 with `half`), "int8" (ONNX), "openvino" (INT8, FILE.xml and FILE.bin) or
            "tensorrt" (FILE.pt2, for this machine's GPU).

    Raises:
        UsageError: unknown target, or an option it does not have.
        ModelError: bad checkpoint, failed parity, or a library or device the target needs is not there.
        StoreError: `out` cannot be written.
    """
    options = options or Options()
    _refuse_nonsense(target, out, options)
    checkpoint = load_checkpoint(checkpoint_path)
    limits = _limits(target, options)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
        scratch = Path(folder)
        if target == "tensorrt":
            made = scratch / out.name
            compile_tensorrt(checkpoint_path, checkpoint, made, "f16" if options.half else "f32")
        else:
            made = _write_onnx(checkpoint, target, scratch, options)
            if target == "openvino":
                made = _write_openvino(made, scratch / out.name)
        backend, device, _ = choose(made.suffix, "auto", "cuda" if target == "tensorrt" else "cpu")
        candidate = open_runner(Request(ModelFile.read(made), device), backend)
        parity = measure(TorchRunner(checkpoint, size=options.size), candidate, parity_frames(options))
        check(parity, limits, target)
        del candidate  # OpenVINO maps its file until then
        _place(made, out)
    return parity


def parity_frames(options: Options) -> list[NetworkInput]:
    """The frames two models are compared on: none of those that calibrate."""
    if options.data is not None:
        return shard_frames(options.data, "held", options.parity_frames, _PARITY_SEED, options.size)
    if options.clips is not None:
        return clip_frames(options.clips, options.parity_frames, _PARITY_SEED, options.size)
    return list(drawn_frames(options.parity_frames, _PARITY_SEED, options.size))


def calibration_frames(options: Options) -> list[NetworkInput]:
    """The frames INT8 ranges are taken from; one in four or so without motion."""
    if options.data is not None:
        return shard_frames(options.data, "train", options.calibration_frames, _CALIBRATION_SEED, options.size)
    if options.clips is not None:
        return clip_frames(options.clips, options.calibration_frames, _CALIBRATION_SEED, options.size)
    return list(drawn_frames(options.calibration_frames, _CALIBRATION_SEED, options.size))


def open_either(
    path: Path, backend: str = "auto", device: str = "auto", precision: str = "f32", size: tuple[int, int] = SIZE
) -> Runner:
    """A runner of a checkpoint or of an exported file, by the rules of the engine's `--backend`.

    Args:
        size: (h, w) a checkpoint is run at on the processor; a file has its own.

    Raises:
        ModelError: the file or the backend cannot be used.
    """
    chosen, chosen_device, _ = choose(path.suffix, backend, device)
    if chosen == "torch" and chosen_device == "cpu" and precision == "f32":
        return TorchRunner(load_checkpoint(path), size=size)
    return open_runner(Request(ModelFile.read(path), chosen_device, precision=precision), chosen)


def _refuse_nonsense(target: str, out: Path, options: Options) -> None:
    if target not in TARGETS:
        raise UsageError(f"--to {target} is unknown: use one of {', '.join(TARGETS)}")
    if options.half and target not in ("onnx", "tensorrt"):
        raise UsageError(f"--half with --to {target}: only onnx and tensorrt have float16; leave it out")
    if options.any_batch and target != "onnx":
        raise UsageError(f"--any-batch with --to {target}: only onnx can leave the batch free; leave it out")
    if options.keep and target not in ("int8", "openvino"):
        raise UsageError(f"--keep with --to {target}: nothing is quantised there; leave it out")
    if options.size != SIZE and target == "tensorrt":
        raise UsageError(f"--size with --to tensorrt: it compiles {SIZE[0]}x{SIZE[1]} only; leave it out")
    if any(side < 64 or side % 32 for side in options.size):
        raise UsageError(f"--size {options.size[0]}x{options.size[1]}: both must be multiples of 32, at least 64")
    suffix = _SUFFIXES.get(target, ".onnx")
    if out.suffix != suffix:
        raise UsageError(f"--out {out}: --to {target} writes {suffix} files; give a name that ends so")
    if not out.parent.is_dir():
        raise StoreError(f"--out {out}: folder {out.parent} does not exist; create it first")


def _limits(target: str, options: Options) -> Limits:
    kind = "int8" if target in ("int8", "openvino") else "half" if options.half else "onnx"
    limits = LIMITS[kind]
    if options.min_mask_iou is None:
        return limits
    return Limits(**(vars(limits) | {"mask_iou": options.min_mask_iou}))


def _write_onnx(checkpoint: Checkpoint, target: str, scratch: Path, options: Options) -> Path:
    path = scratch / "float.onnx"
    write_graph(checkpoint, path, size=options.size, half=options.half, any_batch=options.any_batch)
    if target in ("int8", "openvino"):
        quantised = scratch / "int8.onnx"
        quantise(path, quantised, calibration_frames(options), options.calibration, options.keep)
        path = quantised
    model = onnx.load(path)
    set_metadata(model, contract_metadata(checkpoint, options.name, options.size))
    onnx.checker.check_model(model)
    final = scratch / "final.onnx"
    onnx.save(model, final)
    return final


def _write_openvino(source: Path, out: Path) -> Path:
    try:
        import openvino
    except ImportError as error:
        raise ModelError(
            f"--to openvino: openvino is not installed ({error}); pip install 'unseen-engine[openvino]', or use "
            "--to int8, which openvino reads too"
        ) from None
    model = openvino.Core().read_model(str(source))
    for name, value in model.get_rt_info(["framework"]).value.items():
        model.set_rt_info(str(getattr(value, "value", value)), ["unseen", name])
    # Weights as they are: INT8 stays INT8, the stem and the heads keep their float32.
    openvino.save_model(model, str(out), compress_to_fp16=False)
    return out


def _place(made: Path, out: Path) -> None:
    """Move the file, and what belongs to it, to where it was asked for."""
    companions = {".xml": [".bin"], ".pt2": [".pt2.json"]}.get(made.suffix, [])
    for suffix in companions:
        made.with_suffix(suffix).replace(out.with_suffix(suffix))
    made.replace(out)
