"""Results by group: small panels with the uncertainty of every group, and whether a panel shows anything at all."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.figures.theme import Theme, finish, floats, need_columns, nothing, palette, safe

PANEL = 290
"""Height of a row of panels in pixels."""

SIGNIFICANT = 0.05
WIDE = 12
"""A split of more groups than this gets a row of its own."""


def splits_chart(
    table: pd.DataFrame, tests: pd.DataFrame, *, title: str | None = None, theme: Theme = "light"
) -> go.Figure:
    """Mean R of every group with its 95 % band, a panel a split; panels whose groups cannot be told apart are grey.

    ``table`` is indexed by (split, group) and has ``count, rate, win_rate, expectancy_r, expectancy_r_low,
    expectancy_r_high, net_pnl``; ``tests`` is indexed by split and has ``q_value``. The number of trades stands under
    each group; bands of one day's trades are not defined and not drawn.
    """
    colours = palette(theme)
    columns = ("count", "rate", "win_rate", "expectancy_r", "expectancy_r_low", "expectancy_r_high", "net_pnl")
    need_columns(table, columns, "table")
    need_columns(tests, ("q_value",), "tests")
    if not floats(table["count"], "table.count").any():
        return nothing(theme, title, "no trades to split")
    names = [str(name) for name in tests.index]
    sizes = {name: int((table.index.get_level_values("split") == name).sum()) for name in names}
    grid = _grid(names, sizes)
    rows = max(row for row, _, _ in grid)
    specs: list[list[dict[str, int] | None]] = [[{}, {}] for _ in range(rows)]
    for row, _, wide in grid:
        if wide:
            specs[row - 1] = [{"colspan": 2}, None]
    titles = {name: _heading(name, float(q)) for name, q in zip(names, tests["q_value"], strict=True)}
    figure = make_subplots(
        rows=rows,
        cols=2,
        specs=specs,
        subplot_titles=_titles(grid, names, titles, rows),
        horizontal_spacing=0.09,
        vertical_spacing=min(0.25, 0.45 / rows),
    )
    for name, (row, column, _), q_value in zip(names, grid, floats(tests["q_value"], "tests.q_value"), strict=True):
        part = table[table.index.get_level_values("split") == name]
        numbers = {key: floats(part[key], f"table.{key}") for key in columns}
        told = q_value <= SIGNIFICANT
        mean = numbers["expectancy_r"]
        labels = [
            f"{safe(group).replace('_', '<br>')}<br>{count:,.0f}"
            for group, count in zip(part.index.get_level_values("group"), numbers["count"], strict=True)
        ]
        figure.add_trace(
            go.Scatter(
                x=labels,
                y=mean,
                mode="markers",
                marker={
                    "size": 9,
                    "color": colours.up if told else colours.neutral,
                    "symbol": "circle" if told else "circle-open",
                },
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": numbers["expectancy_r_high"] - mean,
                    "arrayminus": mean - numbers["expectancy_r_low"],
                    "color": colours.up if told else colours.neutral,
                    "thickness": 1.5,
                    "width": 3,
                },
                customdata=np.column_stack([numbers[key] for key in ("win_rate", "rate", "net_pnl")]),
                hovertemplate="%{x} trades<br>%{y:+.2f} R each, %{customdata[0]:.1%} gained, %{customdata[1]:.2f} a day"
                "<br>net P&amp;L %{customdata[2]:+,.2f}<extra></extra>",
                showlegend=False,
            ),
            row=row,
            col=column,
        )
        # Plotly leaves out categories without a point; a group without trades is told too.
        figure.update_xaxes(
            categoryorder="array", categoryarray=labels, range=[-0.6, len(labels) - 0.4], row=row, col=column
        )
        low, high = _range(numbers["expectancy_r_low"], numbers["expectancy_r_high"], mean)
        figure.update_yaxes(range=[low, high], row=row, col=column)
        figure.add_hline(y=0.0, line={"color": colours.ink, "width": 1, "dash": "dot"}, row=row, col=column)
    for row in range(1, rows + 1):
        figure.update_yaxes(title_text="Mean R", row=row, col=1)
    figure.update_xaxes(tickfont={"size": 10}, tickangle=0)
    return finish(figure, theme, title, 90 + PANEL * rows).update_layout(margin={"t": 84})


def _grid(names: list[str], sizes: dict[str, int]) -> list[tuple[int, int, bool]]:
    """(row, column, whether it takes the whole row) of each panel, in order."""
    places: list[tuple[int, int, bool]] = []
    row, column = 1, 1
    for at, name in enumerate(names):
        following = names[at + 1 : at + 2]
        wide = sizes[name] > WIDE or name == "reason"
        alone = column == 1 and (not following or sizes[following[0]] > WIDE or following[0] == "reason")
        if wide or alone:
            row, column = row + (column == 2), 1
            places.append((row, 1, True))
            row += 1
        else:
            places.append((row, column, False))
            row, column = (row, 2) if column == 1 else (row + 1, 1)
    return places


def _heading(name: str, q_value: float) -> str:
    if np.isnan(q_value):
        return f"by {safe(name)}: nothing to compare"
    verdict = "groups differ" if q_value <= SIGNIFICANT else "not told apart"
    return f"by {safe(name)}: {verdict} (adjusted p = {q_value:.3f})"


def _titles(grid: list[tuple[int, int, bool]], names: list[str], titles: dict[str, str], rows: int) -> list[str]:
    """Panel titles in the order in which Plotly deals them out."""
    placed = {(row, column): titles[name] for name, (row, column, _) in zip(names, grid, strict=True)}
    whole = {row for row, _, wide in grid if wide}
    return [
        placed.get((row, column), "")
        for row in range(1, rows + 1)
        for column in (1, 2)
        if column == 1 or row not in whole
    ]


def _range(low: np.ndarray, high: np.ndarray, mean: np.ndarray) -> tuple[float, float]:
    """What the axis shows: all means and nought, and bands as far as they are not of a handful of trades."""
    known = np.isfinite(mean)
    centre = mean[known]
    if not len(centre):
        return -1.0, 1.0
    reach = np.concatenate([low[np.isfinite(low)], high[np.isfinite(high)]])
    most = max(float(np.ptp(np.append(centre, 0.0))), 0.5)
    bottom = max(float(reach.min(initial=0.0)), min(centre.min(), 0.0) - most)
    top = min(float(reach.max(initial=0.0)), max(centre.max(), 0.0) + most)
    bottom, top = min(bottom, float(centre.min()), 0.0), max(top, float(centre.max()), 0.0)
    margin = 0.08 * (top - bottom)
    return bottom - margin, top + margin
