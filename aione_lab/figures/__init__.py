"""Arrays and frames in, Plotly figures out: pure functions, one look, readable at half a million bars."""

from aione_lab.figures.decimate import decimate, decimate_candles
from aione_lab.figures.features import features_chart
from aione_lab.figures.live import live_chart
from aione_lab.figures.performance import equity_chart, trades_chart
from aione_lab.figures.price import price_chart
from aione_lab.figures.result import result_chart
from aione_lab.figures.save import save_figure
from aione_lab.figures.signals import contributions_chart, rates_chart
from aione_lab.figures.theme import template
from aione_lab.figures.zoom import zoom_chart

__all__ = [
    "contributions_chart",
    "decimate",
    "decimate_candles",
    "equity_chart",
    "features_chart",
    "live_chart",
    "price_chart",
    "rates_chart",
    "result_chart",
    "save_figure",
    "template",
    "trades_chart",
    "zoom_chart",
]
