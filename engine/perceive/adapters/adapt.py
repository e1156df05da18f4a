"""Which kind of model a file is, and the adapter for it."""

from engine.errors import ModelError
from engine.perceive.adapters import mask_rcnn, prototype
from engine.perceive.adapters.foreign import ForeignRunner
from engine.perceive.adapters.mask_rcnn import MaskRcnnRunner
from engine.perceive.adapters.prototype import PrototypeRunner
from engine.perceive.backends.runner import Runner

FORMATS = ("auto", "unseen", "maskrcnn", "prototype")
_ADAPTERS: dict[str, type[ForeignRunner]] = {"maskrcnn": MaskRcnnRunner, "prototype": PrototypeRunner}


def recognise(runner: Runner) -> str:
    """The format of an open model: what its metadata say, else what its outputs look like, else "unseen"."""
    stated = runner.metadata.get("format")
    if stated in _ADAPTERS:
        return stated
    if "contract" in runner.metadata or "background" in runner.outputs:
        return "unseen"
    if mask_rcnn.output_names(runner.outputs) is not None:
        return "maskrcnn"
    if prototype.yolo_names(runner.outputs) or prototype.yolact_names(runner.outputs):
        return "prototype"
    return "unseen"


def adapt(runner: Runner, wanted: str, where: str) -> Runner:
    """A runner that follows the model contract: `runner` itself if it is one, else an adapter around it.

    Args:
        runner: an open model.
        wanted: one of `FORMATS`.
        where: the model, for messages.

    Raises:
        ModelError: an unknown format, or a file that is not of it.
    """
    if wanted not in FORMATS:
        raise ModelError(f"model format '{wanted}' is unknown: use one of {', '.join(FORMATS)}")
    found = recognise(runner) if wanted == "auto" else wanted
    return _ADAPTERS[found](runner, where) if found in _ADAPTERS else runner
