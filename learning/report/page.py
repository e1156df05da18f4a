"""The page around the content of a report."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from engine.errors import StoreError

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; margin: .6em 0; }
td, th { padding: .2em .8em; border-bottom: 1px solid var(--line); }
td { text-align: right; font-variant-numeric: tabular-nums; } td:first-child, th:first-child { text-align: left; }
.verdict { padding: .8em 1em; border-left: 5px solid; background: var(--soft); font-size: 1.1em; }
.good { border-color: #009e73; } .bad { border-color: #d55e00; }
.row { display: flex; flex-wrap: wrap; gap: 1em; } .row > div { flex: 1 1 300px; }
figure { margin: 0; flex: 1 1 300px; }
svg { width: 100%; } svg text { font-size: 11px; fill: currentColor; } .grid { stroke: var(--line); fill: none; }
.legend span { margin-right: 1em; white-space: nowrap; }
.legend i { display: inline-block; width: 1em; height: .25em; margin-right: .35em;
  vertical-align: middle; }
img { width: 100%; display: block; } figcaption { font-size: .85em; }
"""


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """An HTML table; floats with four digits."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else escape(str(value))


def picture(image: np.ndarray, caption: str) -> str:
    """A uint8 [h, w, 3] BGR image inside the page."""
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert ok
    source = base64.b64encode(data.tobytes()).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/jpeg;base64,{source}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def write_page(path: Path, title: str, body: str) -> None:
    """Write a page; it is there completely or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>{body}</html>\n"
    )
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError(f"{path}: {error.strerror or error}: make room or give another folder") from None
