"""Options that several reports share, each refused in one line that says what it must be."""

import argparse
import math
from collections.abc import Callable

from engine import config as configuration
from engine.config import EngineConfig
from engine.errors import UsageError


def at_least(least: int) -> Callable[[str], int]:
    """An argparse type for whole numbers from `least` on."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: must be a whole number of at least {least}")
        return int(text)

    return parse


def above_zero(text: str) -> float:
    """An argparse type for numbers above zero."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text}: must be a number above 0")
    return value


def seed_list(text: str) -> list[int]:
    """An argparse type for seeds separated by commas; empty for none."""
    seeds = [item.strip() for item in text.split(",") if item.strip()]
    for seed in seeds:
        if not seed.isdecimal():
            raise argparse.ArgumentTypeError(f"{seed}: seeds must be whole numbers separated by commas")
    return [int(seed) for seed in seeds]


def engine_config(settings: list[str]) -> EngineConfig:
    """The configuration with every KEY=VALUE of `--set` applied.

    Raises:
        UsageError: no KEY=VALUE, an unknown key, or a value it cannot have.
    """
    if wrong := [item for item in settings if "=" not in item]:
        raise UsageError(f"--set {wrong[0]}: must be KEY=VALUE")
    return configuration.apply(EngineConfig(), dict(item.split("=", 1) for item in settings))
