"""Every knob of the engine, its default and the reason for it."""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import UsageError
from engine.prompts.config import PromptsConfig
from engine.seeds.config import SeedsConfig
from engine.select.config import SelectionConfig


def _require(section: object, name: str, holds: bool, allowed: str) -> None:
    if not holds:
        raise UsageError(f"{name}={getattr(section, name)}: must be {allowed}")


@dataclass(frozen=True)
class PerceiveConfig:
    """Flow and network."""

    threads: int = 2  # both cores of a small machine; more brings nothing at this network size
    opencv_threads: int = 1  # the flow itself takes one; for what is left a second costs more to wake than it brings
    overlap: bool | None = None  # see a frame while the one before is decided; none: with more than two cores
    cut_difference: float = 26.0  # gray levels; clips stay below 23 within a shot, 98 % of cuts are above 35
    spin: bool = False  # within a pass of the network: a fifth faster on idle cores, up to twice as slow on busy ones
    precision: str = "f32"  # of layers that are not INT8; f16 (tensorrt) and bf16 (openvino) are faster, masks move

    def __post_init__(self) -> None:
        _require(self, "threads", 1 <= self.threads <= 256, "1 ... 256")
        _require(self, "opencv_threads", 1 <= self.opencv_threads <= 256, "1 ... 256")
        _require(self, "cut_difference", self.cut_difference > 0, "above 0")
        _require(self, "precision", self.precision in ("f32", "f16", "bf16"), "f32, f16 or bf16")


@dataclass(frozen=True)
class ProposeConfig:
    """Which candidate masks enter the selection."""

    proposals: int = 32  # candidates per frame before the seeds' own; the selection stays near 1 ms up to 50
    min_area: float = 0.001  # fraction of the image; smaller blobs are specks that make near-copies
    duplicate_iou: float = 0.9  # two masks above this are the same proposal twice
    foreground_thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)  # levels whose blobs become candidates

    def __post_init__(self) -> None:
        _require(self, "proposals", 1 <= self.proposals <= 1000, "1 ... 1000")
        _require(self, "min_area", 0 <= self.min_area < 1, "at least 0, below 1")
        _require(self, "duplicate_iou", 0 < self.duplicate_iou <= 1, "above 0, at most 1")
        levels = self.foreground_thresholds
        _require(self, "foreground_thresholds", all(0 < level < 1 for level in levels), "between 0 and 1")


@dataclass(frozen=True)
class IdentityConfig:
    """How committed masks become persistent objects."""

    min_similarity: float = 0.25  # below this blend of overlap and appearance a mask is somebody new
    min_overlap: float = 0.1  # looks alone do not move an id to another place from one frame to the next
    embedding_weight: float = 0.25  # share of the embedding against overlap, between neighbouring frames
    look_weight: float = 0.4  # share of colour in the assignment; the rest is overlap and embedding
    strange_likeness: float = 0.6  # colours less alike are another object, whatever the overlap
    recall_similarity: float = 0.72  # colours this alike are the object that was away
    familiar_likeness: float = 0.7  # less alike looks do not enter the memory
    doubtful_likeness: float = 0.65  # less alike, a track in sight may be somebody who was away
    doubt_margin: float = 0.15  # if that one is this much more alike
    near_bonus: float = 0.1  # taken off that where the object is expected
    return_weight: float = 0.2  # place against looks in the choice among several who look like the one that is back
    return_reach: float = 0.2  # image widths from where it left, at which place says a third as much
    split_reach: float = 0.2  # image widths between two parts of one object
    split_likeness: float = 0.8  # colours this alike are parts of one object, if one of them is new and one gone
    recall_area: float = 0.005  # fraction of the image; smaller masks have too few pixels to be recognised
    pace: float = 0.25  # image widths per frame; nobody comes back from farther away
    carry_frames: int = 15  # how long a missing object is looked for by overlap
    adopt_frames: int = 10  # a new object may turn out to be an old one within its first frames
    trusted_sightings: int = 10  # seen less often, it is forgotten after carry_frames
    forget_after_frames: int = 900  # half a minute at 30 Hz
    remembered: int = 100  # objects; the one away longest leaves first
    memory_looks: int = 12  # past looks kept per object, 4 KB each
    smoothing: float = 0.2  # weight of the newest frame in foreground, velocity and embedding
    fading: float = 0.05  # the same where an object seems less foreground than before

    def __post_init__(self) -> None:
        for name in ("min_similarity", "pace", "smoothing", "fading", "return_reach"):
            _require(self, name, 0 < getattr(self, name) <= 1, "above 0, at most 1")
        shares = ("min_overlap", "embedding_weight", "look_weight", "strange_likeness", "familiar_likeness")
        recalled = ("return_weight", "split_reach", "split_likeness")
        for name in (*shares, *recalled, "doubtful_likeness", "doubt_margin", "near_bonus", "recall_area"):
            _require(self, name, 0 <= getattr(self, name) <= 1, "0 ... 1")
        _require(self, "recall_similarity", self.recall_similarity > 0, "above 0 (above 1: never)")
        for name in ("carry_frames", "adopt_frames"):
            _require(self, name, getattr(self, name) >= 0, "at least 0")
        for name in ("trusted_sightings", "forget_after_frames", "remembered", "memory_looks"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")


@dataclass(frozen=True)
class RecordConfig:
    """What `--record` keeps for learning."""

    interval: int = 5  # one final frame in so many: neighbours teach the same (and the paper's choice)
    max_loss_bound: float = 0.02  # nats per pixel a forced decision may have cost; above, it was a gamble
    quota_mb: int = 2048  # about ten thousand frames; the least useful leave first
    image_px: int = 1280  # longer side of stored pictures; networks of this kind see less
    jpeg_quality: int = 90  # artefacts below what motion features notice

    def __post_init__(self) -> None:
        _require(self, "interval", self.interval >= 1, "at least 1")
        _require(self, "max_loss_bound", self.max_loss_bound >= 0, "at least 0")
        _require(self, "quota_mb", self.quota_mb >= 1, "at least 1")
        _require(self, "image_px", self.image_px >= 64, "at least 64")
        _require(self, "jpeg_quality", 1 <= self.jpeg_quality <= 100, "1 ... 100")


@dataclass(frozen=True)
class EngineConfig:
    """The whole engine; `--print-config` shows what runs, `--set section.key=value` changes it."""

    perceive: PerceiveConfig = field(default_factory=PerceiveConfig)
    propose: ProposeConfig = field(default_factory=ProposeConfig)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    seeds: SeedsConfig = field(default_factory=SeedsConfig)
    select: SelectionConfig = field(default_factory=SelectionConfig)
    identity: IdentityConfig = field(default_factory=IdentityConfig)
    record: RecordConfig = field(default_factory=RecordConfig)


def nearest(key: str, known: Iterable[str]) -> str:
    """A ` (did you mean 'x'?)` ending for an unknown key, or the list of all known ones."""
    names = sorted(known)
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else f" (known: {', '.join(names)})"


def _convert(key: str, value: Any, kind: Any) -> Any:
    """`value` (text or already parsed) as the type of the field, or a one-line UsageError."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if value is None or value in ("none", "null"):
            return None
        return _convert(key, value, next(k for k in typing.get_args(kind) if k is not type(None)))
    if typing.get_origin(kind) is typing.Literal:
        allowed = typing.get_args(kind)
        if value not in allowed:
            raise UsageError(f"{key}={value}: allowed are {', '.join(map(str, allowed))}")
        return value
    try:
        if typing.get_origin(kind) is tuple:
            items = value.split(",") if isinstance(value, str) else value
            return tuple(_convert(key, item, typing.get_args(kind)[0]) for item in items)
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        if kind is int and isinstance(value, float):
            raise ValueError
        return kind(value)
    except (ValueError, TypeError, KeyError):
        name = getattr(kind, "__name__", str(kind))
        raise UsageError(f"{key}={value!r}: expected a value of type {name}") from None


def apply(config: EngineConfig, settings: Mapping[str, Any]) -> EngineConfig:
    """A copy of `config` with dotted keys replaced, e.g. {"select.lag": 3}.

    Raises:
        UsageError: unknown key (names the nearest), value of the wrong type or out of range.
    """
    for key, value in settings.items():
        section_name, _, name = key.partition(".")
        sections = [f.name for f in dataclasses.fields(config)]
        if section_name not in sections:
            raise UsageError(f"unknown configuration key '{key}'{nearest(key, _flat_keys(config))}")
        section = getattr(config, section_name)
        hints = typing.get_type_hints(type(section))
        if name not in hints:
            raise UsageError(f"unknown configuration key '{key}'{nearest(key, _flat_keys(config))}")
        try:
            section = dataclasses.replace(section, **{name: _convert(key, value, hints[name])})
        except ValueError as error:
            raise UsageError(f"{key}={value}: {error}") from None
        config = dataclasses.replace(config, **{section_name: section})
    return config


def _flat_keys(config: EngineConfig) -> list[str]:
    return list(flatten(config))


def flatten(config: EngineConfig) -> dict[str, Any]:
    """Dotted keys and values of everything in `config`."""
    return {
        f"{section.name}.{item.name}": getattr(getattr(config, section.name), item.name)
        for section in dataclasses.fields(config)
        for item in dataclasses.fields(getattr(config, section.name))
    }


def load(path: Path) -> dict[str, Any]:
    """Settings of a JSON file: either dotted keys or one object per section, e.g. {"select": {"lag": 3}}.

    Raises:
        UsageError: missing file, not JSON, not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"configuration {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(f"configuration {path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise UsageError(f"configuration {path}: expected an object, found {type(content).__name__}")
    settings: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            settings |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            settings[key] = value
    return settings


def to_json(config: EngineConfig) -> str:
    """`config` as JSON that `load` reads back."""
    return json.dumps(dataclasses.asdict(config), indent=2)
