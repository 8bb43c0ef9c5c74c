"""Files of candles as exchanges and other stores hand them out, for the tests of the import."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aione_lab.lake import Lake

START = 1_746_316_800_000  # 2025-05-04T00:00Z
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)


def make_candles(n: int = 300, start: int = START, step: int = 60_000, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 1e-3, n))), 4)
    open_ = np.append(100.0, close[:-1])
    volume = np.round(rng.gamma(2.0, 10.0, n), 3)
    columns = {
        "open": open_,
        "high": np.maximum(open_, close) + 0.01,
        "low": np.minimum(open_, close) - 0.01,
        "close": close,
        "volume": volume,
        "quote_volume": np.round(volume * close, 4),
        "trades": rng.integers(1, 500, n).astype(float),
        "taker_buy_volume": np.round(volume * rng.random(n), 3),
    }
    stamps = start + step * np.arange(n, dtype=np.int64)
    index = pd.DatetimeIndex(stamps.view("M8[ms]"), name="timestamp").tz_localize("UTC")
    return pd.DataFrame(columns, index=index)


def kline_csv(frame: pd.DataFrame, header: bool = True, unit: int = 1, step: int = 60_000) -> bytes:
    ms = frame.index.asi8
    lines = [HEADER] if header else []
    for t, row in zip(ms, frame.itertuples(index=False), strict=True):
        cells = [t * unit, row.open, row.high, row.low, row.close, row.volume, (t + step) * unit - 1]
        cells += [row.quote_volume, int(row.trades), row.taker_buy_volume, row.taker_buy_volume * row.close, 0]
        lines.append(",".join(str(cell) for cell in cells))
    return ("\n".join(lines) + "\n").encode()


def zipped(content: bytes, member: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return sink.getvalue()


def write_archive(folder: Path, stem: str, content: bytes, checksum: bool | str = False) -> Path:
    path = folder / f"{stem}.zip"
    path.write_bytes(zipped(content, f"{stem}.csv"))
    if checksum:
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if checksum is True else checksum
        path.with_name(path.name + ".CHECKSUM").write_text(f"{digest}  {path.name}\n")
    return path


def source_of(frame: pd.DataFrame, form: str, folder: Path, stem: str) -> pd.DataFrame | Path:
    """The frame as a file ``csv``, ``parquet`` or ``feather``, or as it is (``frame``)."""
    path = folder / f"{stem}.{form}"
    if form == "frame":
        return frame
    if form == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path) if form == "parquet" else frame.to_feather(path)
    return path


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def assert_untouched(lake: Lake) -> None:
    assert lake.symbols() == []
    assert not [p for p in Path(lake.root).rglob("*.parquet")]
