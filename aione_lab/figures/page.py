"""The parts that the sections of an HTML report share: its style, its tables, its numbered charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from aione_lab import __version__
from aione_lab.figures.theme import CONFIG

STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 Inter, "Segoe UI", Helvetica, Arial, sans-serif; color: #1f2933; background: #fff;
  max-width: 1180px; margin: 0 auto; padding: 24px 20px 64px }
h1 { font-size: 26px; margin: 0 0 4px }
h2 { font-size: 21px; margin: 56px 0 8px; padding-top: 14px; border-top: 2px solid #1f2933 }
h3 { font-size: 16px; margin: 30px 0 6px }
h4 { font-size: 14px; margin: 16px 0 4px }
p { margin: 6px 0 }
.soft { color: #52606d; font-size: 13px }
.verdict { font-size: 17px; font-weight: 600; border-left: 4px solid #0072b2; padding: 4px 0 4px 14px; margin: 12px 0 }
.note { background: #f5f7fa; padding: 8px 14px; border-radius: 4px }
table { border-collapse: collapse; font-size: 14px; margin: 8px 0 }
th, td { text-align: left; padding: 4px 18px 4px 0; border-bottom: 1px solid #e4e7eb; vertical-align: top }
th { color: #52606d; font-weight: 600; white-space: nowrap }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.scroll { overflow-x: auto }
details { margin: 8px 0 } summary { cursor: pointer; font-weight: 600 }
a { color: #0072b2 } dt { font-weight: 600 } dd { margin: 0 0 6px 18px }
code { font-size: 12px; overflow-wrap: anywhere }
@media print { details { display: none } }
"""

# The file may hold names that came from outside; even a mistake in escaping could load or send nothing.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    "base-uri 'none'; form-action 'none'"
)


def page_html(title: str, note: str, body: str) -> str:
    """A whole page that opens without a network; ``body`` is HTML, ``title`` and ``note`` are text."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n<script>{get_plotlyjs()}</script></head>\n<body>"
        f"<h1>{escape(title)}</h1>"
        f'<p class="soft">aione-lab {escape(__version__)}. Research on past candles; no advice. {escape(note)}</p>'
        f"{body}</body></html>\n"
    )


class Charts:
    """Figures as HTML, numbered, so that the same report has the same text."""

    def __init__(self) -> None:
        self._count = 0

    def html(self, figure: go.Figure) -> str:
        self._count += 1
        return figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=f"chart-{self._count}",
            config=dict(CONFIG),
        )


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Sequence[int] = (),
    links: Sequence[str] = (),
) -> str:
    """A table; columns ``numbers`` are aligned right, the rows' first cells lead to ``links`` (ids on this page)."""

    def cell(tag: str, place: int, text: str, link: str = "") -> str:
        shown = f'<a href="#{escape(link)}">{escape(text)}</a>' if link else escape(text)
        return f"<{tag}{' class=number' if place in numbers else ''}>{shown}</{tag}>"

    lines = []
    for number, row in enumerate(rows):
        targets = [links[number] if links else ""] + [""] * (len(row) - 1)
        parts = [cell("td", place, *pair) for place, pair in enumerate(zip(row, targets, strict=True))]
        lines.append(f"<tr>{''.join(parts)}</tr>")
    titles = "".join(cell("th", place, text) for place, text in enumerate(header))
    head = f"<thead><tr>{titles}</tr></thead>" if header else ""
    return f'<div class="scroll"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'
