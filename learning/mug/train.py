"""Training of MuG on unlabelled clips: `python -m learning.pretrain --objective mug`."""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

import cv2
import torch
from rich.console import Console

from engine.errors import UsageError
from learning.mug.bursts import build
from learning.mug.plan import GRANULARITIES, Plan
from learning.mug.stills import build_stills
from learning.mug.tracking import PATCHES
from learning.mug.trainer import READ_OUT, Trainer
from learning.report.charts import Line, line_chart
from learning.report.page import table, write_page


def run(trainer: Trainer, console: Console, save_every_s: float) -> None:
    """Train to the end of the plan, saving and validating on the way."""
    trainer.out.mkdir(parents=True, exist_ok=True)
    saved = said = start = time.monotonic()
    begin, first_step = trainer.elapsed, trainer.step
    recent: dict[str, float] = {}

    def note() -> None:
        place = {"step": trainer.step, "minutes": trainer.elapsed / 60, "round": trainer.round + 1}
        trainer.history.append({**place, **recent, **trainer.validate()})
        text = " ".join(f"{name} {value:.3f}" for name, value in trainer.history[-1].items() if "held" in name)
        console.print(f"step {trainer.step}  {text}", soft_wrap=True)

    while trainer.progress < 1:
        terms = trainer.frames_step() if trainer.frames_alone else trainer.train_step(trainer.batches.draw())
        recent = {n: 0.95 * recent.get(n, v) + 0.05 * v for n, v in terms.items()}
        trainer.elapsed = begin + time.monotonic() - start
        due = min(int(trainer.progress * trainer.plan.rounds), trainer.plan.rounds - 1)
        if due > trainer.round:
            note()
            trainer.enter_round(due)
        if time.monotonic() - said > 20:
            said = time.monotonic()
            rate = (trainer.step - first_step) / (said - start)
            text = " ".join(f"{n} {v:.3f}" for n, v in recent.items())
            now = f"{trainer.elapsed / 60:5.1f} min  round {trainer.round + 1}  step {trainer.step}"
            console.print(f"{now}  {rate:.2f} steps/s  {text}", soft_wrap=True)
        if time.monotonic() - saved > save_every_s:
            note()
            trainer.save()
            saved = time.monotonic()
    note()
    trainer.save(f"round{trainer.plan.rounds}.pt")
    trainer.save()
    write_curves(trainer)


def write_curves(trainer: Trainer) -> None:
    """history.json, and report.html with a chart of every term."""
    history = trainer.history
    (trainer.out / "history.json").write_text(json.dumps(history, indent=1), encoding="utf-8")
    charts = []
    for name in (*GRANULARITIES, READ_OUT):
        lines = []
        for key, label in ((name, "training"), (f"held {name}", "held-out clips")):
            rows = [(row["minutes"], row[key]) for row in history if key in row]
            lines.append(Line(label, [row[0] for row in rows], [row[1] for row in rows]))
        charts.append(f"<div><h2>{escape(name)}</h2>{line_chart(lines, 'minutes', 'loss')}</div>")
    plan = asdict(trainer.plan)
    facts = table(("what", "value"), [(key, str(value)) for key, value in {**plan, "seed": trainer.seed}.items()])
    body = f'{facts}<div class="row">{"".join(charts)}</div>'
    write_page(trainer.out / "report.html", "Learning from unlabelled clips", body)


def train(arguments: Sequence[str]) -> None:
    """The command line of `--objective mug`.

    Raises:
        EngineError: what went wrong, with its exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m learning.pretrain --objective mug",
        description="foreground and features from unlabelled clips at four granularities",
    )
    default = Plan()
    parser.add_argument("--clips", type=Path, required=True, help="folder of videos; its sub-folders are sources")
    parser.add_argument("--cache", type=Path, help="decoded clips; made when missing; default: OUT/bursts")
    parser.add_argument("--per-source", type=int, default=225, help="clips of every source at most")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an interrupted run there resumes")
    parser.add_argument("--minutes", type=float, default=default.minutes)
    parser.add_argument("--steps", type=int, help="number of steps instead of minutes")
    parser.add_argument("--rounds", type=int, default=default.rounds, help="of bootstrapping")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help=f"of {', '.join(GRANULARITIES)}")
    parser.add_argument("--batch", type=int, default=default.batch, help="videos per step")
    parser.add_argument("--rate", type=float, default=default.rate, help="peak of the learning rate")
    parser.add_argument("--patches", choices=PATCHES, default=default.patches, help="what is tracked; paper: picture")
    parser.add_argument(
        "--frames-first",
        type=float,
        default=default.frames_first,
        help="share of every round in which single frames teach the frame granularity alone",
    )
    parser.add_argument("--stills", type=Path, nargs="+", help="folders of photographs it learns from as well")
    parser.add_argument("--stills-cache", type=Path, help="decoded photographs; default: OUT/stills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--save-every", type=float, default=240, help="seconds between checkpoints")
    args = parser.parse_args(arguments)
    if args.save_every <= 0:
        raise UsageError(f"--save-every {args.save_every:g}: must be above 0")
    if args.seed < 0:
        raise UsageError(f"--seed {args.seed}: must be 0 or more")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda, but torch sees no CUDA device: use --device cpu")
    if unknown := [name for name in args.without if name not in GRANULARITIES]:
        raise UsageError(f"--without {unknown[0]}: unknown; choose of {', '.join(GRANULARITIES)}")
    kept = tuple(name for name in GRANULARITIES if name not in args.without)
    plan = Plan(args.minutes, args.steps, args.rounds, kept, args.batch, args.rate, args.patches, args.frames_first)
    plan.check()
    cv2.setNumThreads(1)
    console = Console()
    bursts = build(args.clips, args.cache or args.out / "bursts", args.per_source, args.seed, console.print)
    stills = build_stills(args.stills, args.stills_cache or args.out / "stills", console.print) if args.stills else None
    run(Trainer(bursts, args.out, plan, args.seed, args.device, stills=stills), console, args.save_every)
