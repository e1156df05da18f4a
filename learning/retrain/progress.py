"""How far each stage is: bars on a terminal, a few lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINES = 4
"""Lines per stage where there is no terminal to draw a bar in."""


@contextmanager
def bars(console: Console) -> Iterator[Callable[[str], Callable[..., None]]]:
    """A function that adds a progress bar and returns what advances it: (done, total, text)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def add(description: str) -> Callable[..., None]:
            task = progress.add_task(description, total=None, state="")
            said = 0

            def advance(done: int, total: int, state: str = "") -> None:
                nonlocal said
                progress.update(task, completed=done, total=total, state=state)
                if not console.is_terminal and done * _LINES // total > said:
                    said = done * _LINES // total
                    console.print(f"{description}: {done} of {total} {state}".rstrip(), highlight=False)

            return advance

        yield add
