"""Checkpoints as runners: torch on the processor or, through CUDA graphs, on a GPU.

The engine finds `open_torch` by the entry-point group `unseen.backends`, so that it needs no torch itself.
"""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from engine.errors import ModelError
from engine.perceive.backends.runner import Request, Shape, only_precision
from engine.perceive.contract import OUTPUTS
from engine.perceive.motion import FEATURE_CHANNELS
from export.checkpoint import Checkpoint, load_checkpoint
from export.frames import motion_size
from export.graph import contract_metadata
from learning.networks.compact import MASK_STRIDE, Compact, Maps
from learning.synthesis.sample import SIZE

_DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16}
_WARM_UP_RUNS = 3


class TorchRunner:
    """The network of a checkpoint; on a GPU one captured graph replays every frame.

    Args:
        checkpoint: the network, left as it is.
        device: "cpu" or "cuda".
        precision: "f32", "f16" or "bf16" of the convolutions; masks are read out in float32 in any case.
        size: (h, w) of the image input.
    """

    name = "torch"

    def __init__(
        self, checkpoint: Checkpoint, device: str = "cpu", precision: str = "f32", size: tuple[int, int] = SIZE
    ) -> None:
        config = checkpoint.network.config
        self.device = device
        self.inputs: dict[str, Shape] = {
            "image": (1, 3, *size),
            "motion": (1, FEATURE_CHANNELS, *motion_size(size)),
        }
        grid = (size[0] // MASK_STRIDE, size[1] // MASK_STRIDE)
        self.outputs: dict[str, Shape] = {
            "masks": (1, config.proposals, *grid),
            "scores": (1, config.proposals),
            "background": (1, 1, *grid),
            "embedding": (1, config.embedding, *grid),
        }
        self.metadata = contract_metadata(checkpoint, "checkpoint", size)
        network = copy.deepcopy(checkpoint.network).eval().to(device)
        if precision != "f32":
            _reduce(network, device, _DTYPES[precision])
        self._network: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._graph = _Graph(self._forward, self.inputs) if device == "cuda" else None

    def run(self, feed: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `engine.perceive.backends.runner.Runner.run`."""
        if self._graph is not None:
            values = self._graph.replay(feed)
        else:
            values = tuple(v.numpy() for v in self._forward(*(torch.from_numpy(feed[n]) for n in self.inputs)))
        found = dict(zip(OUTPUTS, values, strict=True))
        return found if outputs is None else {name: found[name] for name in outputs}

    @torch.inference_mode()
    def _forward(self, image: Tensor, motion: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._network(image, motion))


def _reduce(network: Compact, device: str, dtype: torch.dtype) -> None:
    """Compute the dense outputs in `dtype`; what reads masks out of them goes on in float32."""
    dense = network.maps

    def maps(image: Tensor, motion: Tensor) -> Maps:
        with torch.autocast(device, dtype):
            return Maps(*(value.float() for value in dense(image, motion)))

    network.maps = maps  # type: ignore[method-assign]


class _Graph:
    """A forward pass captured once: replayed without launching its kernels one by one.

    Not run on hardware.
    """

    def __init__(self, forward: object, inputs: Mapping[str, Shape]) -> None:
        assert callable(forward)
        self._inputs = {name: torch.zeros(*map(int, shape), device="cuda") for name, shape in inputs.items()}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_RUNS):
                forward(*self._inputs.values())
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = forward(*self._inputs.values())
        # Copies between pinned memory and the device overlap; from pageable memory each would wait.
        self._sent = {name: torch.empty(value.shape, pin_memory=True) for name, value in self._inputs.items()}
        self._received = [torch.empty(value.shape, pin_memory=True) for value in self._outputs]

    def replay(self, feed: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        for name, value in self._inputs.items():
            self._sent[name].copy_(torch.from_numpy(feed[name]))
            value.copy_(self._sent[name], non_blocking=True)
        self._graph.replay()
        for host, value in zip(self._received, self._outputs, strict=True):
            host.copy_(value, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return tuple(host.numpy().copy() for host in self._received)


def open_torch(request: Request) -> TorchRunner:
    """A runner of a checkpoint.

    Raises:
        ModelError: no GPU where one is asked for, a precision the device does not have, or no checkpoint.
    """
    only_precision(request, "torch", ("f32", "bf16") if request.device == "cpu" else ("f32", "f16", "bf16"))
    if request.device == "cuda":
        require_cuda("backend torch")
    else:
        torch.set_num_threads(request.threads)
    return TorchRunner(load_checkpoint(request.model.path), request.device, request.precision)


def require_cuda(what: str) -> None:
    """Refuse to go on without a GPU that torch can use.

    Raises:
        ModelError: with the reason.
    """
    if torch.cuda.is_available():
        return
    reason = "was built without CUDA" if torch.version.cuda is None else "finds no GPU or driver"
    raise ModelError(
        f"{what} on cuda: torch {torch.__version__} {reason}; use --device cpu, or install torch for CUDA "
        "(pip install torch, without a CPU index)"
    )
