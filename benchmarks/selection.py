"""The selection: time against masks, combinations and frames; agreement with slower ways; certificates.

    python -m benchmarks.selection --json selection.json [--clips DIR] [--quick]

Times are medians of single calls on one core: `ms` by the wall, `cpu_ms` of the calling thread, which other
work on the machine disturbs less.
"""

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import networkx
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.blob_video import GRID, blob_video, frame_graph
from engine.percepts import Percepts
from engine.select.combinations import enumerate_combinations
from engine.select.config import SelectionConfig
from engine.select.diversity import diverse_combinations
from engine.select.masks import pack
from engine.select.path import OnlinePath, offline_path
from engine.select.reference import brute_force_combinations, paper_combinations, paper_path
from engine.select.selection import Selection

DEADLINES = (0, 1, 2, 3, 5, 10)
Row = dict[str, Any]


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall milliseconds and thread milliseconds of one call."""
    wall, cpu = time.perf_counter(), time.thread_time()
    result = call()
    return result, (time.perf_counter() - wall) * 1e3, (time.thread_time() - cpu) * 1e3


def median(values: list[float]) -> float | None:
    """Median rounded to microseconds; None of nothing."""
    return round(float(np.median(values)), 4) if values else None


def enumeration(quick: bool) -> list[Row]:
    """The K best combinations of blob masks: time against N and K, and the same graphs solved otherwise."""
    rows = []
    for n, k in [*((n, 10) for n in (10, 15, 20, 30, 50, 70, 100)), (50, 1), (50, 30), (50, 60)]:
        rng = np.random.default_rng(n)
        times: dict[str, list[float]] = {
            "ms": [],
            "cpu_ms": [],
            "diverse_ms": [],
            "brute_force_ms": [],
            "paper_ms": [],
        }
        nodes, same, compared = [], 0, 0
        for percepts in blob_video(rng, 6 if quick else 30, n):
            weights, graph = frame_graph(percepts)
            masks = pack(percepts.masks)
            found, wall, cpu = timed(lambda w=weights, g=graph, k=k: enumerate_combinations(w, g, k))
            times["ms"].append(wall)
            times["cpu_ms"].append(cpu)
            nodes.append(found.nodes)
            times["diverse_ms"].append(
                timed(lambda w=weights, g=graph, k=k, m=masks: diverse_combinations(w, g, m, k, 0.95, 4_000))[1]
            )
            costs = [cost for cost, _ in found.combinations]
            # The slower ways are shown as far as they go.
            for name, solve, most in (
                ("brute_force_ms", brute_force_combinations, 15 if quick else 20),
                ("paper_ms", paper_combinations, 20 if quick else 30),
            ):
                if n <= most and k == 10 and len(times[name]) < 5:
                    expected, wall, _ = timed(lambda w=weights, g=graph, k=k, s=solve: s(w, g, k))
                    times[name].append(wall)
                    compared += 1
                    same += bool(np.allclose(costs, [cost for cost, _ in expected], atol=1e-9))
        rows.append(
            {"n": n, "k": k}
            | {name: median(values) for name, values in times.items()}
            | {"p95_ms": round(float(np.percentile(times["ms"], 95)), 4), "states": int(np.median(nodes))}
            | {"agree": f"{same}/{compared}"}
        )
    return rows


def budget(quick: bool) -> list[Row]:
    """What the anytime limit buys on graphs made to be hard: sparse conflicts, weights nearly equal."""
    rng = np.random.default_rng(0)
    rows = []
    graphs = []
    for _ in range(3 if quick else 10):
        weights = -1.0 - 0.01 * rng.random(80)
        graphs.append((weights, np.triu(rng.random((80, 80)) < 0.08, 1)))
    for limit in (1_000, 4_000, 20_000):
        found = [timed(lambda g=g, b=limit: enumerate_combinations(*g, 10, node_budget=b)) for g in graphs]
        gaps = [(e.combinations[0][0] - e.bound) / abs(e.bound) for e, _, _ in found]
        rows.append(
            {
                "n": 80,
                "budget": limit,
                "max_ms": round(max(wall for _, wall, _ in found), 2),
                "exact": sum(e.exact for e, _, _ in found),
                "graphs": len(graphs),
                "worst_gap_percent": round(100 * max(max(gaps), 0.0), 3),
            }
        )
    return rows


def layered(unaries: list[np.ndarray], pairwises: list[np.ndarray | None]) -> networkx.DiGraph:
    """The video graph for networkx, costs shifted to be non-negative; every path pays the shifts alike."""
    graph = networkx.DiGraph()
    lowest = 0.0
    edges = []
    for t, unary in enumerate(unaries):
        before = range(1) if t == 0 else range(len(unaries[t - 1]))
        coupling = pairwises[t]
        for j, k in itertools.product(before, range(len(unary))):
            cost = float(unary[k]) + (0.0 if coupling is None else float(coupling[j, k]))
            lowest = min(lowest, cost)
            edges.append(((t - 1, j), (t, k), cost))
    for source, target, cost in edges:
        graph.add_edge(source, target, weight=cost - lowest)
    for k in range(len(unaries[-1])):
        graph.add_edge((len(unaries) - 1, k), "end", weight=0.0)
    graph.graph["shift"] = lowest * len(unaries)
    return graph


def paths(quick: bool) -> list[Row]:
    """The shortest path through T frames of K combinations, four ways on the same costs."""
    rows = []
    for k, frames in [(3, 60), (10, 20), (10, 60), (10, 180), (20, 60), (40, 60)]:
        rng = np.random.default_rng(k)
        times: dict[str, list[float]] = {
            "online_us_per_frame": [],
            "offline_ms": [],
            "paper_ms": [],
            "networkx_ms": [],
        }
        same = runs = 0
        for _ in range(2 if quick else 5):
            unaries = list(rng.normal(size=(frames, k)))
            pairwises = [None, *rng.normal(size=(frames - 1, k, k))]
            path = OnlinePath(None)

            def online(path: OnlinePath = path, u: list[Any] = unaries, p: list[Any] = pairwises) -> list[int]:
                commits = [c for unary, pairwise in zip(u, p, strict=True) for c in path.push(unary, pairwise)]
                return [c.node for c in commits + path.flush()]

            nodes, wall, _ = timed(online)
            times["online_us_per_frame"].append(1e3 * wall / frames)
            (expected, cost), wall, _ = timed(lambda u=unaries, p=pairwises: offline_path(u, p))
            times["offline_ms"].append(wall)
            (_, paper_cost), wall, _ = timed(lambda u=unaries, p=pairwises: paper_path(u, p))
            times["paper_ms"].append(wall)
            graph = layered(unaries, pairwises)
            length, wall, _ = timed(lambda g=graph: networkx.dijkstra_path_length(g, (-1, 0), "end"))
            times["networkx_ms"].append(wall)
            runs += 1
            costs = [paper_cost, length + graph.graph["shift"]]
            same += bool(nodes == expected and np.allclose(costs, cost))
        row = {"k": k, "frames": frames} | {name: median(values) for name, values in times.items()}
        rows.append(row | {"agree": f"{same}/{runs}"})
    return rows


def stream(quick: bool) -> Row:
    """Cost of a push over an endless stream."""
    pushes = 10_000 if quick else 100_000
    rng = np.random.default_rng(0)
    unaries = rng.normal(size=(997, 10))
    pairwises = rng.normal(size=(991, 10, 10))
    path = OnlinePath(5)
    blocks = []
    for block in range(100):
        start = time.thread_time()
        for t in range(block * pushes // 100, (block + 1) * pushes // 100):
            path.push(unaries[t % 997], pairwises[t % 991] if t else None)
        blocks.append((time.thread_time() - start) * 1e6 / (pushes // 100))
    first, last = float(np.median(blocks[5:25])), float(np.median(blocks[80:]))
    return {
        "pushes": pushes,
        "k": 10,
        "first_us": round(first, 2),
        "last_us": round(last, 2),
        "ratio": round(last / first, 3),
    }


MODES = {
    "default": SelectionConfig(),
    "no scores": SelectionConfig(lambda_score=0.0),
    "paper": SelectionConfig(paper_mode=True),
    "blind scores": SelectionConfig(),
}
"""The score prior is ours; without it the objective is Eq. 2, with the paper's strict rules it is the paper.

Blind scores call every candidate an object: the worst case of the prior, as no detector scores.
"""


def video(n: int, frames: int, mode: str) -> Iterator[Percepts]:
    """The blob video of a mode with n candidates per frame."""
    return blob_video(np.random.default_rng(n), frames, n, scored=mode != "blind scores")


def steps(quick: bool) -> tuple[list[Row], list[Row]]:
    """`Selection.step` on blob videos against N, and what each deadline costs on the same videos."""
    rows, traces = [], []
    for n in (10, 32, 50, 70, 100):
        for mode, config in MODES.items():
            walls, cpus, lags, exact, kept = [], [], [], [], []
            trace: list[tuple[int, np.ndarray, np.ndarray | None]] = []
            selection = Selection(config, trace=lambda *costs, into=trace: into.append(costs))
            for t, percepts in enumerate(video(n, 60 if quick else 300, mode)):
                step, wall, cpu = timed(lambda s=selection, p=percepts, t=t: s.step(p, t))
                walls.append(wall)
                cpus.append(cpu)
                kept.append(len(selection.combinations))
                lags += [c.lag for c in step.commits]
                exact += [c.exact for c in step.commits]
            rows.append(
                {
                    "n": n,
                    "k": config.combinations,
                    "mode": mode,
                    "ms": median(walls[5:]),
                    "p95_ms": round(float(np.percentile(walls[5:], 95)), 4),
                    "cpu_ms": median(cpus[5:]),
                    "p95_cpu_ms": round(float(np.percentile(cpus[5:], 95)), 4),
                    "kept": round(float(np.mean(kept)), 1),
                    "lag_frames": round(float(np.mean(lags)), 2),
                    "exact_percent": round(100 * float(np.mean(exact)), 1),
                }
            )
            if mode == "default":
                traces.append([costs[1:] for costs in trace])
    return rows, deadlines(traces)


def replay(
    trace: list[tuple[np.ndarray, np.ndarray | None]], lag: int | None
) -> tuple[list[int], list[Any], list[int]]:
    """Nodes, commits and lags of a recorded video; an uncoupled frame starts a new path, as in the engine."""
    path = OnlinePath(lag)
    commits: list[Any] = []
    lags: list[int] = []
    for t, (unary, pairwise) in enumerate(trace):
        if pairwise is None:
            ended = path.flush()
            lags += [t - 1 - c.frame_index for c in ended]
            commits += ended
        decided = path.push(unary, pairwise)
        lags += [t - c.frame_index for c in decided]
        commits += decided
    ended = path.flush()
    lags += [len(trace) - 1 - c.frame_index for c in ended]
    return [c.node for c in commits + ended], commits + ended, lags


def path_cost(trace: list[tuple[np.ndarray, np.ndarray | None]], nodes: list[int]) -> float:
    """Eq. 2 of one choice per frame."""
    total = 0.0
    for t, (unary, pairwise) in enumerate(trace):
        total += float(unary[nodes[t]])
        if pairwise is not None:
            total += float(pairwise[nodes[t - 1], nodes[t]])
    return total


def deadlines(traces: list[list[tuple[np.ndarray, np.ndarray | None]]]) -> list[Row]:
    """What each deadline costs on recorded videos, against what its certificates promise."""
    rows: list[Row] = []
    for lag in (None, *DEADLINES):
        gaps, bounds, lags, exact, same, violated, broken = [], [], [], [], 0, 0, 0
        for trace in traces:
            optimum_nodes, optimum = offline_path(*zip(*trace, strict=True))
            nodes, commits, waited = replay(trace, lag)
            gaps.append(max(path_cost(trace, nodes) - optimum, 0.0))
            bounds.append(sum(c.loss_bound for c in commits))
            lags += waited
            exact += [c.exact for c in commits]
            same += nodes == optimum_nodes
            violated += gaps[-1] > bounds[-1] + 1e-9
            broken += all(c.exact for c in commits) and gaps[-1] > 1e-9
        rows.append(
            {
                "deadline": "none" if lag is None else lag,
                "videos": len(traces),
                "frames": len(exact),
                "lag_mean": round(float(np.mean(lags)), 2),
                "lag_p99": float(np.percentile(lags, 99)),
                "exact_percent": round(100 * float(np.mean(exact)), 2),
                "videos_optimal": same,
                "gap_mean": round(float(np.mean(gaps)), 5),
                "gap_max": round(float(np.max(gaps)), 5),
                "bound_mean": round(float(np.mean(bounds)), 5),
                "bound_violated": violated,
                "exact_not_optimal": broken,
            }
        )
    alone = [path_cost(t, [int(u.argmin()) for u, _ in t]) - offline_path(*zip(*t, strict=True))[1] for t in traces]
    mean, most = round(float(np.mean(alone)), 5), round(float(np.max(alone)), 5)
    rows.append({"deadline": "each frame alone", "videos": len(traces), "gap_mean": mean, "gap_max": most})
    return rows


def clip_trace(
    path: Path, pipeline: Any, max_frames: int
) -> tuple[list[tuple[np.ndarray, np.ndarray | None]], list[Any], list[float]]:
    """Run the engine on one clip: the costs it saw, its decisions in order, its selection times in ms."""
    import cv2

    from engine.frame import Frame

    trace: list[tuple[np.ndarray, np.ndarray | None]] = []
    decisions, select_ms = [], []
    pipeline.selection.trace = lambda index, unary, pairwise: trace.append((unary, pairwise))
    capture = cv2.VideoCapture(str(path))
    for index in range(max_frames):
        ok, image = capture.read()
        if not ok:
            break
        scenes = pipeline.step(Frame(image, index, index, path.name))
        decisions += [scene.commit for scene in scenes if scene.commit is not None]
        select_ms.append(pipeline.timing_ms["select"])
    capture.release()
    decisions += [scene.commit for scene in pipeline.reset() if scene.commit is not None]
    return trace, decisions, select_ms


def clips(folder: Path, most_clips: int, most_frames: int) -> Row:
    """The whole engine on real footage: when it decided, how far from the optimum, what it had promised."""
    from engine.config import EngineConfig
    from engine.perceive.network import Network, resolve_model
    from engine.pipeline import Pipeline

    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".mp4", ".avi", ".webm", ".mkv"))
    count = min(len(files), most_clips or len(files))
    chosen = [files[i * len(files) // count] for i in range(count)]
    config = EngineConfig()
    network = Network(resolve_model(None))
    traces, rows, select_ms = [], [], []
    for path in chosen:
        trace, decisions, times = clip_trace(path, Pipeline(config, network), most_frames)
        if not trace:
            continue
        # The same costs through the path alone must give the decisions the engine published.
        nodes, commits, lags = replay(trace, config.select.lag)
        told = [(d.exact, d.loss_bound, d.lag) for d in decisions]
        faithful = told == [(c.exact, c.loss_bound, waited) for c, waited in zip(commits, lags, strict=True)]
        optimum = offline_path(*zip(*trace, strict=True))[1]
        rows.append(
            {
                "clip": str(path.relative_to(folder)),
                "frames": len(trace),
                "combinations": round(float(np.mean([len(u) for u, _ in trace])), 1),
                "lag_mean": round(float(np.mean(lags)), 2),
                "exact_percent": round(100 * float(np.mean([c.exact for c in commits])), 1),
                "gap": round(max(path_cost(trace, nodes) - optimum, 0.0), 5),
                "bound": round(sum(c.loss_bound for c in commits), 5),
                "replay_equals_engine": faithful,
            }
        )
        traces.append(trace)
        select_ms += times[3:]
    return {
        "clips": rows,
        "deadlines": deadlines(traces),
        "select_ms": {"p50": median(select_ms), "p95": round(float(np.percentile(select_ms, 95)), 4)},
    }


def show(console: Console, title: str, rows: list[Row]) -> None:
    """Print rows with equal keys as a table."""
    table = Table(title=title)
    names = list(rows[0])
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*("" if row.get(name) is None else str(row.get(name)) for name in names))
    console.print(table)


def main() -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.selection", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--clips", type=Path, help="folder of videos for the section on real footage")
    parser.add_argument("--clip-count", type=int, default=24, help="clips, evenly spread; 0 takes every one")
    parser.add_argument("--clip-frames", type=int, default=150, help="frames per clip at most")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, two clips")
    options = parser.parse_args()
    console = Console(width=max(Console().width, 150))
    # Compile before any clock runs; a deadline of 0 takes every branch of the path.
    warm = Selection(SelectionConfig(lag=0))
    for t, percepts in enumerate(blob_video(np.random.default_rng(0), 4, 8)):
        warm.step(percepts, t)
    result: Row = {"load_1min": round(os.getloadavg()[0], 2), "quick": options.quick}
    result["enumeration"] = enumeration(options.quick)
    show(console, "K best combinations of one frame", result["enumeration"])
    result["budget"] = budget(options.quick)
    show(console, "Anytime limit on hard graphs", result["budget"])
    result["paths"] = paths(options.quick)
    show(console, "Shortest path through a video", result["paths"])
    result["stream"] = stream(options.quick)
    show(console, "Endless stream", [result["stream"]])
    result["steps"], result["deadlines"] = steps(options.quick)
    show(console, f"Selection.step on a {GRID[0]} x {GRID[1]} grid", result["steps"])
    show(console, "Deadline against optimum, synthetic videos", result["deadlines"])
    if options.clips is not None:
        count, frames = (2, 40) if options.quick else (options.clip_count, options.clip_frames)
        result["footage"] = clips(options.clips, count, frames)
        show(console, "The engine on footage", result["footage"]["clips"][:24])
        show(console, "Deadline against optimum, footage", result["footage"]["deadlines"])
        console.print(f"selection per frame on footage, ms: {result['footage']['select_ms']}")
    return machine.finish(options.json, result)


if __name__ == "__main__":
    sys.exit(main())
