"""Knobs that may change while the engine runs."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from engine import config as configuration
from engine.config import EngineConfig
from engine.errors import UsageError

LIVE_KEYS = (
    "perceive.cut_difference",
    "propose.proposals",
    "propose.min_area",
    "propose.duplicate_iou",
    "select.combinations",
    "select.lambda_background",
    "select.lambda_flow",
    "select.lambda_consistency",
    "select.lambda_score",
    "select.score_reference",
)
"""Read anew for every frame. The others size a window, a memory or a thread pool when the engine starts."""

_LONGEST_TEXT = 64


class LiveSettings:
    """The configuration in force and the one door through which it changes.

    Args:
        config: what the engine started with.
        configure: makes every pipeline follow a configuration, between two frames.
    """

    def __init__(self, config: EngineConfig, configure: Callable[[EngineConfig], None]) -> None:
        self._config = config
        self._configure = configure

    @property
    def values(self) -> dict[str, Any]:
        """The changeable keys and what they are."""
        flat = configuration.flatten(self._config)
        return {key: flat[key] for key in LIVE_KEYS}

    def change(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Change all of `settings` or, when one is wrong, none; returns all changeable keys.

        Raises:
            UsageError: a key that may not change while the engine runs, a wrong type or a value out of range.
        """
        for key, value in settings.items():
            if key not in LIVE_KEYS:
                raise UsageError(
                    f"set {key[:_LONGEST_TEXT]!r}: cannot change live{configuration.nearest(key, LIVE_KEYS)}"
                )
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and abs(value) < 2**63 and math.isfinite(value)) and not isinstance(value, str):
                raise UsageError(f"set {key}: a finite number is needed, not a {type(value).__name__}")
            if isinstance(value, str) and len(value) > _LONGEST_TEXT:
                raise UsageError(f"set {key}: {len(value)} characters, at most {_LONGEST_TEXT} are read")
        changed = configuration.apply(self._config, settings)
        self._configure(changed)
        self._config = changed
        return self.values
