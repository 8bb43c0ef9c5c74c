"""Asset classes: which base asset a symbol has, which class that is, and whose field wins."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from aione_lab.backtest import replay
from aione_lab.errors import InputError
from aione_lab.thresholds import Thresholds
from aione_lab.thresholds.classes import (
    DEFAULT_CLASSES,
    DEFAULTS,
    AssetClass,
    AssetClasses,
    asset_class,
    base_asset,
    thresholds_for,
)


@pytest.mark.parametrize(
    ("symbol", "base"),
    [
        ("BTCUSDT", "BTC"),
        ("btcusdt", "BTC"),
        ("BTC/USDT:USDT", "BTC"),
        ("1000PEPEUSDT", "PEPE"),
        ("1000000MOGUSDT", "MOG"),
        ("1MBABYDOGEUSDT", "BABYDOGE"),
        ("1INCHUSDT", "1INCH"),
        ("1000SATSUSDC", "SATS"),
        ("ETHBTC", "ETH"),
        ("SOLFDUSD", "SOL"),
        ("BTCUSDT_251226", "BTC"),
        ("BNBUSD_PERP", "BNB"),
        ("DOTUSD_PERP", "DOT"),
        ("BTC/USDT:USDT-251226", "BTC"),
        ("USDCUSDT", "USDC"),
        ("USDT", "USDT"),
        ("BTC", "BTC"),
        ("ABCXYZ", "ABCXYZ"),
    ],
)
def test_base_asset(symbol, base):
    assert base_asset(symbol) == base


@pytest.mark.parametrize(
    ("name", "symbols"),
    [
        ("spot", "BTCUSDT ETHUSDT BNBUSDT BTCUSD_PERP"),
        ("futures", "SOLUSDT XRPUSDT AVAXUSDT XMRUSDT BTCDOMUSDT"),
        ("meme", "1000PEPEUSDT DOGEUSDT 1000SHIBUSDT WIFUSDT 1000FLOKIUSDT BABYDOGEUSDT"),
        ("defi", "UNIUSDT AAVEUSDT ENAUSDT 1INCHUSDT"),
        ("nft", "APEUSDT BLURUSDT"),
        ("metaverse", "SANDUSDT MANAUSDT AXSUSDT"),
        ("ai", "FETUSDT TAOUSDT WLDUSDT"),
        ("stable", "USDCUSDT FDUSDUSDT"),
        ("other", "QQQUSDT BTCSTUSDT XBTCUSDT"),
    ],
)
def test_classes_of_known_symbols(name, symbols):
    assert {asset_class(symbol) for symbol in symbols.split()} == {name}


def test_the_specific_classes_come_first_and_nothing_falls_through():
    names = [entry.name for entry in DEFAULTS]
    assert names[-1] == "other" and names.index("meme") < names.index("spot") < names.index("futures")
    assert set(names) == {"spot", "futures", "meme", "defi", "nft", "metaverse", "ai", "stable", "other"}
    for entry in DEFAULTS:
        assert len(entry.thresholds.model_fields_set) <= 4


def test_precedence_field_by_field():
    meme = DEFAULT_CLASSES.of("1000PEPEUSDT").thresholds
    assert meme.model_fields_set >= {"tp_mult", "sl_mult"}
    made = thresholds_for("1000PEPEUSDT", Thresholds(tp_mult=2.0, vol_z_threshold=2.7, meta={"study": "s"}))
    assert (made.tp_mult, made.vol_z_threshold) == (2.0, 2.7)
    assert made.sl_mult == meme.sl_mult != Thresholds().sl_mult
    assert made.min_confidence == Thresholds().min_confidence and made.low_gate is None
    assert made.meta == {"study": "s", "source": "calibrated", "asset_class": "meme"}


def test_a_field_that_was_calibrated_to_its_default_beats_the_class():
    made = thresholds_for("1000PEPEUSDT", Thresholds(sl_mult=Thresholds().sl_mult))
    assert made.sl_mult == Thresholds().sl_mult


def test_without_a_calibration():
    assert thresholds_for("BTCUSDT") == Thresholds()
    assert thresholds_for("BTCUSDT").meta == {"source": "default", "asset_class": "spot"}
    assert thresholds_for("1000PEPEUSDT") == DEFAULT_CLASSES.of("1000PEPEUSDT").thresholds
    assert thresholds_for("1000PEPEUSDT").meta["source"] == "asset_class"


def test_own_classes_from_a_file(tmp_path):
    path = tmp_path / "classes.toml"
    path.write_text(
        'quotes = ["USDT"]\n'
        '[[classes]]\nname = "l2"\npattern = "ARB|OP"\n[classes.thresholds]\ntp_mult = 2.5\nlow_gate = "0.6x"\n'
        '[[classes]]\nname = "rest"\npattern = ".*"\n'
    )
    classes = AssetClasses.load(path)
    assert asset_class("ARBUSDT", classes) == "l2" and asset_class("DOGEUSDT", classes) == "rest"
    made = thresholds_for("OPUSDT", None, classes)
    assert (made.tp_mult, made.low_gate, made.model_fields_set) == (2.5, "0.6x", {"tp_mult", "low_gate", "meta"})
    again = tmp_path / "classes.json"
    again.write_text(json.dumps(classes.model_dump(mode="json", exclude_unset=True)))
    assert AssetClasses.load(again) == classes and hash(AssetClasses.load(again)) == hash(classes)


REST = {"name": "rest", "pattern": ".*"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"classes": [{"name": "a", "pattern": "("}, REST]}, ["AssetClass.pattern='('", "no regular expression"]),
        ({"classes": [{"name": "a", "pattern": "A", "thresholds": {"vol_z": 1}}, REST]}, ["did you mean"]),
        ({"classes": [{"name": "a", "pattern": "A", "thresholds": {"tp_mult": -1}}, REST]}, ["Thresholds.tp_mult=-1"]),
        ({"classes": [{"name": "a", "patern": "A"}, REST]}, ["did you mean 'pattern'"]),
        ({"classes": [{"name": "<b>", "pattern": "A"}, REST]}, ["AssetClass.name='<b>'"]),
        ({"classes": [REST, REST]}, ["'rest' is listed twice"]),
        ({"classes": [{"name": "a", "pattern": "A"}]}, ["the last class must match everything"]),
        ({"classes": []}, ["the last class must match everything"]),
        ({"quotes": ["usdt"]}, ["AssetClasses.quotes"]),
        ({"klasses": []}, ["did you mean 'classes'"]),
    ],
)
def test_bad_classes_are_refused_in_one_clear_line(values, words):
    with pytest.raises(InputError) as refused:
        AssetClasses(**values)
    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("symbol", ["../../x", "", None, "<b>"])
def test_what_is_no_symbol_has_no_class(symbol):
    for function in (asset_class, base_asset, thresholds_for):
        with pytest.raises(InputError, match="symbol="):
            function(symbol)


def test_bad_calibrated_sets_are_refused():
    with pytest.raises(InputError, match="calibrated="):
        thresholds_for("BTCUSDT", {"tp_mult": 2})
    crossed = AssetClasses(classes=(AssetClass(name="all", pattern=".*", thresholds=Thresholds(rsi_overbought=40)),))
    with pytest.raises(InputError, match="rsi_oversold must be less than rsi_overbought"):
        thresholds_for("BTCUSDT", Thresholds(rsi_oversold=45), crossed)


@pytest.mark.long
def test_the_rates_of_the_defaults_hold_with_every_class_on_every_real_file(shared):
    """5 to 60 alerts and 0.2 to 5 BUYs a day, whichever of the classes a real symbol were put into."""
    folder = shared / "candles" / "1m"
    btc = pd.read_parquet(folder / "BTCUSDT.parquet")
    sets = [Thresholds(), *(entry.thresholds for entry in DEFAULTS)]
    checked = 0
    for path in sorted(folder.glob("*.parquet")):
        candles = pd.read_parquet(path)
        days = len(candles) / 1440 - 1
        reference = None if path.stem == "BTCUSDT" else btc
        features = replay(candles, symbol=path.stem, interval="1m", reference=reference).features
        for limits in dict.fromkeys(sets):
            records = replay(candles, limits, symbol=path.stem, interval="1m", features=features).signal_records
            alerts, buys = (records["signal"] == 2).sum() / days, (records["recommendation"] == 1).sum() / days
            assert 5 <= alerts <= 60 and 0.2 <= buys <= 5, (path.stem, limits, alerts, buys)
        checked += 1
    assert checked >= 7
