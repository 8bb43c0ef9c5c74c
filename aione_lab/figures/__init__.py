"""Arrays and frames in, Plotly figures out: pure functions, one look, readable at half a million bars."""

from aione_lab.figures.decimate import decimate
from aione_lab.figures.features import features_chart
from aione_lab.figures.live import live_chart
from aione_lab.figures.performance import equity_chart, trades_chart
from aione_lab.figures.price import price_chart
from aione_lab.figures.result import result_chart
from aione_lab.figures.signals import contributions_chart, rates_chart
from aione_lab.figures.theme import template

__all__ = [
    "contributions_chart",
    "decimate",
    "equity_chart",
    "features_chart",
    "live_chart",
    "price_chart",
    "rates_chart",
    "result_chart",
    "template",
    "trades_chart",
]
