"""The lake: candles and funding rates on disk, checked on the way in and on the way out."""

from aione_lab.lake.resample import resample
from aione_lab.lake.schema import CANDLE_COLUMNS, FUNDING_COLUMNS, check_candles, check_funding, screen_candles
from aione_lab.lake.store import Appended, Lake, fingerprint_candles

__all__ = [
    "CANDLE_COLUMNS",
    "FUNDING_COLUMNS",
    "Appended",
    "Lake",
    "check_candles",
    "check_funding",
    "fingerprint_candles",
    "resample",
    "screen_candles",
]
