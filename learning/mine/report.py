"""What a mined store holds and what it took: sums over the accounts of its shards."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from learning.mine.job import Outcome

_SHOWN = 10


def summarise(accounts: Iterable[dict[str, Any]], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Sums over all shards, and what the latest run could not mine.

    Args:
        outcomes: of the latest run.
    """
    total: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    not_kept: Counter[str] = Counter()
    loss_bound = peak_mb = 0.0
    lag_max = 0
    for account in accounts:
        total["recordings"] += 1
        for name in ("frames", "exact", "forced", "kept", "selections", "bytes", "wall_s", "cpu_s"):
            total[name] += account[name]
        lost.update(account["lost"])
        not_kept.update(account["not_kept"])
        loss_bound += account["loss_bound"]
        peak_mb = max(peak_mb, account["peak_mb"])
        lag_max = max(lag_max, account["lag_max"])
    new = [outcome.account for outcome in outcomes if outcome.account is not None]
    return {
        "recordings": total["recordings"],
        "frames": total["frames"],
        "exact_share": total["exact"] / total["frames"] if total["frames"] else None,
        "forced": total["forced"],
        "loss_bound": loss_bound,
        "lag_max_frames": lag_max,
        "frames_kept": total["kept"],
        "selections": total["selections"],
        "not_kept": dict(not_kept.most_common()),
        "lost": dict(lost.most_common()),
        "source_mb": total["bytes"] / 2**20,
        "core_hours": total["cpu_s"] / 3600,
        "frames_per_core_hour": 3600 * total["frames"] / total["cpu_s"] if total["cpu_s"] else None,
        "worker_peak_mb": peak_mb,
        "latest_run": {
            "mined": len(new),
            "already_there": sum(not outcome.problem for outcome in outcomes) - len(new),
            "failed": [
                {"uri": outcome.recording.uri, "problem": outcome.problem} for outcome in outcomes if outcome.problem
            ],
        },
    }


def show(report: dict[str, Any], uri: str, console: Console) -> None:
    """Print the report as a table, failures below."""
    table = Table("", uri)
    for name, value in report.items():
        if name == "latest_run":
            continue
        shown = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(name.replace("_", " "), shown)
    console.print(table)
    failed = report["latest_run"]["failed"]
    for item in failed[:_SHOWN]:
        console.print(f"not mined: {item['problem']}", style="yellow", highlight=False, soft_wrap=True)
    if len(failed) > _SHOWN:
        console.print(f"… and {len(failed) - _SHOWN} more, all in report.json", style="yellow")
