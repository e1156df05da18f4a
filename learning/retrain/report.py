"""The page about one retraining: what was decided, on what figures, and how it looks."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learning.batches import Batches
from learning.contact_sheet import draw
from learning.networks.compact import Compact
from learning.report.charts import Line, line_chart
from learning.report.overlay import draw_answer
from learning.report.page import picture, table, write_page
from learning.retrain.selections import Account
from learning.retrain.verdict import CONFIDENCE, Pair, Verdict
from learning.synthesis.sample import SIZE
from learning.synthesis.shards import Shards

_EXTREMES = 2
"""Frames shown that gained most, and as many that lost most."""

_OTHERS = 4


def chosen_frames(gains: Sequence[float | None]) -> list[int]:
    """Frames worth a look: the largest gains, some in between, the largest losses."""
    known = sorted((i for i, gain in enumerate(gains) if gain is not None), key=lambda i: -(gains[i] or 0.0))
    rest = known[_EXTREMES : len(known) - _EXTREMES]
    return [*known[:_EXTREMES], *rest[:: max(1, len(rest) // _OTHERS)][:_OTHERS], *known[_EXTREMES:][-_EXTREMES:]]


@torch.no_grad()
def pictures(
    networks: tuple[Compact, Compact], shards: Shards, gains: Sequence[float | None], device: torch.device
) -> str:
    """Held-out frames: labels, what both networks say, and what they say of the photograph alone."""
    batches = Batches(shards, 1, SIZE, seed=0)
    rows = []
    for index in chosen_frames(gains):
        image, _, ids, kinds, _ = shards[index]
        batch = batches.pick([index])
        tiles = [draw(image, ids, kinds)]
        for motion in (batch.motion, torch.zeros_like(batch.motion)):
            for network in networks:
                out = network(batch.image.to(device), motion.to(device))
                foreground = 1 - out.background[0, 0].float().cpu().numpy()
                masks, scores = out.masks[0].float().cpu().numpy(), out.scores[0].float().cpu().numpy()
                tiles.append(draw_answer(image, foreground, masks, scores))
        rows.append(picture(np.hstack(tiles), f"held-out frame {index}, gain {gains[index]:+.3f}"))
    return "".join(rows)


def _figures(name: str, pair: Pair) -> str:
    before, after = (found.figures for found in pair)
    rows = [[figure, before[figure], after[figure], f"{after[figure] - before[figure]:+.4f}"] for figure in before]
    content = table(("", "base", "retrained", "change"), rows)
    return f"<div><h3>{escape(name)}, {len(pair[0].frames)} frames</h3>{content}</div>"


def _lines(rows: list[dict[str, float]]) -> list[Line]:
    """One line for every name in the rows besides "step"."""
    names = [name for name in (rows[-1] if rows else {}) if name != "step"]
    return [Line(name, [row["step"] for row in rows], [row[name] for row in rows]) for name in names]


def _counts(name: str, counts: dict[str, int]) -> str:
    return table((name, "count"), [[cause, str(n)] for cause, n in sorted(counts.items(), key=lambda item: -item[1])])


def _tests(verdict: Verdict) -> str:
    rows = [
        [
            "selections: gain of the mean score",
            f"{verdict.gain:+.4f} ± {verdict.error:.4f}, {verdict.blocks} blocks",
            f"{verdict.at_least:+.4f} at least",
            "> 0",
        ]
    ]
    for name, lost in verdict.losses.items():
        measured = f"{lost.mean:+.4f} ± {lost.error:.4f}, {lost.frames} frames"
        rows.append([f"old data: loss of {name}", measured, f"{lost.bound:+.4f} at most", f"≤ {verdict.margin:g}"])
    return table(("test", "measured", f"with {CONFIDENCE:.0%} confidence", "required"), rows)


def _curves(name: str, pair: Pair) -> str:
    lines = [Line(who, s.recall, s.precision) for who, s in zip(("base", "retrained"), pair, strict=True)]
    return f"<div><h3>{escape(name)}</h3>{line_chart(lines, 'recall', 'precision at IoU 0.5', unit_square=True)}</div>"


def write_report(
    path: Path,
    verdict: Verdict,
    placed: str | None,
    slices: Mapping[str, Pair],
    history: list[dict[str, float]],
    curve: list[dict[str, float]],
    account: Account,
    facts: dict[str, Any],
    shown: str,
) -> None:
    """Write the page.

    Args:
        placed: name of the version in the registry, if any.
        slices: name -> base and retrained network on it.
        facts: label -> value for the last table.
        shown: HTML of the pictures.

    Raises:
        StoreError: it cannot be written.
    """
    parts = [
        f'<p class="verdict {"good" if verdict.promoted else "bad"}">{escape(verdict.reason)}'
        + (f"<br>In the registry as {escape(placed)}." if placed else "")
        + "</p>",
        _tests(verdict),
        '<div class="row">',
        *(_figures(name, pair) for name, pair in slices.items()),
        "</div><h2>Before and after</h2>",
        "<p>Left: labels made of the selections (moving green, at rest blue, ignored gray). Then base and retrained, "
        "and both without motion. Proposals with a score of 0.3 or more in colour, foreground outlined in white. First "
        "the largest gains, last the largest losses.</p>",
        shown,
        '<h2>Curves</h2><div class="row">',
        *(_curves(name, pair) for name, pair in slices.items()),
        f"<div><h3>Losses, smoothed</h3>{line_chart(_lines(history), 'step', 'loss')}</div>",
        f"<div><h3>Held-out scores on the way</h3>{line_chart(_lines(curve), 'step', 'mean score')}</div>",
        "</div><h2>What it was made of</h2>",
        table(("", ""), [[name, str(value)] for name, value in facts.items()]),
        f"<h3>{account.stored} frames in the store; those looked at</h3>",
        _counts("frames", account.frames),
        _counts("selections", account.masks),
    ]
    write_page(path, "Retraining: " + ("promoted" if verdict.promoted else "kept the base"), "".join(parts))
