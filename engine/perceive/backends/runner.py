"""The interface of everything that runs a model file, and what is needed to open one."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.errors import ModelError

Shape = tuple[int | str, ...]
"""Lengths per axis; a name where the length is free, as the batch of a model for several cameras."""

PRECISIONS = ("f32", "f16", "bf16")


@dataclass(frozen=True)
class ModelFile:
    """A model file and what identifies it.

    Attributes:
        path: the file.
        hash: 12 hexadecimal digits of the SHA-256 of its content (of both files of an OpenVINO model).
        content: of `path`, the bytes that were hashed: what is loaded is what was identified.
    """

    path: Path
    hash: str
    content: bytes = field(default=b"", repr=False, compare=False)

    @classmethod
    def read(cls, path: Path) -> "ModelFile":
        """Hash a file.

        Raises:
            ModelError: it cannot be read.
        """
        digest, contents = hashlib.sha256(), []
        files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
        for file in files:
            try:
                contents.append(file.read_bytes())
            except OSError as error:
                raise ModelError(f"model {file}: {error.strerror or error}") from None
            digest.update(contents[-1])
        return cls(path, digest.hexdigest()[:12], contents[0])


@dataclass(frozen=True)
class Request:
    """What a runner is to be opened with.

    Attributes:
        model: the file.
        device: "cpu" or "cuda".
        threads: processor threads it may use.
        precision: arithmetic of layers that are not quantised: "f32", or "f16" or "bf16" where the backend has
            it and the loss is accepted.
        rebuild_engines: replace a compiled engine that was made for another machine or library version.
        spin: threads that wait for the next operator of a pass may spin (onnxruntime on the processor).
    """

    model: ModelFile
    device: str = "cpu"
    threads: int = 2
    precision: str = "f32"
    rebuild_engines: bool = False
    spin: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ModelError(f"precision '{self.precision}' is unknown: use one of {', '.join(PRECISIONS)}")


class Runner(Protocol):
    """A loaded model: arrays in, arrays out."""

    @property
    def name(self) -> str:
        """The backend, as `--backend` names it."""

    @property
    def device(self) -> str:
        """Where it runs, "cpu" or "cuda"."""

    @property
    def inputs(self) -> Mapping[str, Shape]:
        """Names to shapes."""

    @property
    def outputs(self) -> Mapping[str, Shape]:
        """Names to shapes."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Text the model file carries."""

    def run(self, feed: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """One forward pass.

        Args:
            feed: C-contiguous float32 arrays of the shapes in `inputs`; not kept.
            outputs: names wanted, None for all.

        Returns:
            Names to float32 arrays that belong to the caller: later calls do not change them.
        """
        ...


def only_precision(request: Request, backend: str, allowed: Sequence[str]) -> None:
    """Refuse a precision the backend does not have on the device.

    Raises:
        ModelError: naming those it has.
    """
    if request.precision not in allowed:
        raise ModelError(
            f"backend {backend} on {request.device} has no precision {request.precision}: use {' or '.join(allowed)}"
        )
