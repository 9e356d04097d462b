"""The pages' common parts: self-contained HTML with tables and pictures."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from modsync_jax.reporting._drawing import DPI

_READABLE = 680  # CSS pixels; in a narrower figure the text is too small to read

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6470; --line: #d9dee4; --page: #fff;
  --panel: #f4f6f8; --ok: #00694c; --note: #8a5a00; --bad: #b02a1c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaee; --soft: #a3acb8; --line: #363d46;
  --page: #15181c; --panel: #1e2329; --ok: #4fc79d; --note: #e3b04b; --bad: #ff8a7a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 66rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.45rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h1, td, li { overflow-wrap: break-word; }
ul { list-style: none; margin: 0; padding: 0; }
li { padding: .3rem 0 .3rem 4.2rem; text-indent: -4.2rem; }
li b { display: inline-block; width: 4.2rem; text-indent: 0; }
.ok b { color: var(--ok); } .note b { color: var(--note); } .bad b { color: var(--bad); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .25rem 1.5rem .25rem 0;
  border-bottom: 1px solid var(--line); font-weight: normal; }
th { color: var(--soft); }
figure { margin: 0 0 1.6rem; }
figure img { display: block; max-width: 100%; height: auto; margin: auto; }
.card { overflow-x: auto; background: #fff; border: 1px solid var(--line); border-radius: 8px;
  padding: .6rem; }
figcaption { color: var(--soft); font-size: .92rem; margin-top: .5rem; }
pre { background: var(--panel); border-radius: 8px; padding: .8rem 1rem; overflow-x: auto;
  font-size: .9rem; }
summary { cursor: pointer; font-size: 1.15rem; font-weight: 600; margin: 2.2rem 0 .6rem; }
.scroll { overflow-x: auto; }
.numbers { font-size: .92rem; }
.numbers th, .numbers td { white-space: nowrap; }
.numbers th { position: sticky; left: 0; background: var(--page);
  box-shadow: inset 0 -1px var(--line); }
.numbers td { text-align: right; padding: .25rem 0 .25rem .9rem; }
.numbers tr:first-child td { color: var(--soft); }
tr.winner th, tr.winner td { font-weight: 700; color: var(--ok); }
a { color: inherit; }
"""


def page(title: str, body: str) -> str:
    """Returns a self-contained HTML page in the reports' style; `body` is HTML, `title` is text."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{body}
</body>
</html>
"""


def table(rows: Iterable[Sequence[str]]) -> str:
    """Returns an HTML table whose rows start with their header."""
    lines = "\n".join(_line(cells) for cells in rows)
    return f'<div class="scroll"><table>\n{lines}\n</table></div>'


def numbers(rows: Sequence[Sequence[str]], *, winner: bool = False) -> str:
    """Returns an HTML table of numbers on unbroken lines, with a header row first.

    Args:
      rows: cells as text; the first of each row names it.
      winner: whether to mark the row after the header.
    """
    lines = "\n".join(_line(cells, marked=winner and i == 1) for i, cells in enumerate(rows))
    return f'<div class="scroll"><table class="numbers">\n{lines}\n</table></div>'


def link_table(rows: Mapping[str, Sequence[tuple[str, str | None]]]) -> str:
    """Returns an HTML table of links: by the name of a row, texts with an address if any."""
    lines = []
    for name, links in rows.items():
        cells = [
            f'<a href="{escape(address)}">{escape(text)}</a>'
            if address is not None
            else f"{escape(text)} (no report)"
            for text, address in links
        ]
        lines.append(f"<tr><th>{escape(name)}</th><td>{', '.join(cells)}</td></tr>")
    body = "\n".join(lines)
    return f'<div class="scroll"><table>\n{body}\n</table></div>'


def figure(path: Path, name: str, caption: str) -> str:
    """Returns an HTML figure of a PNG; on a narrow screen a large figure scrolls sideways."""
    png = path.read_bytes()
    width = int.from_bytes(png[16:20], "big") * 96 // DPI  # its size in print, as CSS pixels
    data = base64.b64encode(png).decode()
    return (
        f'<figure><div class="card"><img alt="{escape(name)}" width="{width}" '
        f'style="min-width:{min(width, _READABLE)}px" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _line(cells: Sequence[str], *, marked: bool = False) -> str:
    name, *others = cells
    mark, star = (' class="winner"', "★ ") if marked else ("", "")
    data = "".join(f"<td>{escape(cell)}</td>" for cell in others)
    return f"<tr{mark}><th>{star}{escape(name)}</th>{data}</tr>"
