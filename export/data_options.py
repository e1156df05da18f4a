"""The options that say which frames an export is calibrated on and compared over, and at which size."""

import argparse
from pathlib import Path


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add `--data SHARDS` and `--clips DIR`, one at most; without either, drawn shapes are used."""
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--data", type=Path, metavar="SHARDS", help="folder of shards (default: drawn shapes)")
    data.add_argument("--clips", type=Path, metavar="DIR", help="folder of videos")


def size_option(text: str) -> tuple[int, int]:
    """An argparse type for HxW."""
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text}: must be HEIGHTxWIDTH, e.g. 192x352")
    return int(height), int(width)
