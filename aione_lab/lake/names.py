"""What the path of a candle file says: its symbol, its interval, and whether it holds trade prices at all."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from aione_lab.errors import InputError
from aione_lab.lake.limits import BadFileError
from aione_lab.units import INTERVALS, parse_symbol

SUFFIXES = (".zip", ".csv", ".parquet", ".pq", ".feather", ".arrow")

_QUOTES = "USDT|USDC|FDUSD|BUSD|TUSD|USD|BTC|ETH|BNB|EUR|TRY|GBP|AUD|BRL|JPY|UAH"
_INTERVAL = r"(?P<interval>\d{1,2}[a-zA-Z]{1,2})"
_PERIOD = r"(?P<period>\d{4}-\d{2}(?:-\d{2})?)"
# BTCUSDT, BTC_USDT_USDT, BTC-USD, BTC-USDT-SWAP
_NAME = rf"(?P<symbol>[A-Za-z0-9_]+?|[A-Z0-9]+-(?:{_QUOTES})(?:-SWAP|-\d{{6}})?)"
# BTCUSDT-1m-2025-05, BTCUSDT-1m-2025-05-03, UNITTEST_BTC-1m, BTC_USDT_USDT-5m-futures, BTC-USD_1m, BTCUSDT
_CANDLES = re.compile(rf"{_NAME}(?:[-_]{_INTERVAL}(?:[-_](?:{_PERIOD}|futures|spot))?)?")
# BTCUSDT-fundingRate-2025-05, BTC_USDT_USDT-8h-funding_rate, BTCUSDT
_FUNDING = re.compile(rf"{_NAME}(?:(?P<interval>-\d{{1,2}}h)?-(?:fundingRate|funding_rate|funding)(?:-{_PERIOD})?)?")
# A symbol in a name must end like one, or "klines-1m.csv" would become the symbol KLINES
_LIKE_A_SYMBOL = re.compile(rf"[A-Z0-9_]+(?:{_QUOTES}|PERP)(?:_\d{{6}})?")
# Stores that write the base, the quote and the kind of contract apart: BTC-USDT-SWAP
_DASHED = re.compile(rf"([A-Z0-9]+)-({_QUOTES})(?:-(SWAP|\d{{6}}))?")
# Where perpetual contracts are BTC-USDT-SWAP, BTC-USDT is the spot market
_DASHED_PAIR = re.compile(rf"[A-Z0-9]+-(?:{_QUOTES})(?:_|-\d|$)")
_MARKET_ENDING = re.compile(r"(?i:[-_](?:spot|futures)$)|-SWAP(?=[-_]|$)")
_COIN_MARGINED = re.compile(r"[A-Z0-9]+USD_(?:PERP|\d{6})")
# Stores that write ccxt's BTC/USDT:USDT as BTC_USDT_USDT
_SETTLED = re.compile(r"([A-Z0-9]+)_(USDT|USDC|BUSD|USD)_\2")
_KINDS_OF_MARKET = {"spot", "futures", "future", "swap", "perpetual", "perp", "linear", "um"}
_UNSHOWN = ("Cc", "Cf", "Cs")  # controls, invisible formatting (it can turn a line around), half surrogates
# Folders of the public archive whose files carry the names of kline files and other prices
_OTHER_PRICES = ("markpriceklines", "indexpriceklines", "premiumindexklines")


class NamedFile(NamedTuple):
    """A file with the symbol, interval and market (spot or futures) its path tells, None where it tells none."""

    path: Path
    symbol: str | None
    interval: str | None
    market: str | None


def find_files(source: str | Path | Iterable[str | Path], leave_out: Sequence[Path] = ()) -> list[Path]:
    """Files that ``source`` names: a file, a folder (all readable files below it), a pattern, or a list of those.

    Patterns are expanded here too, because a quoted ``*`` reaches us unexpanded. What folders and patterns
    find in the folders ``leave_out`` is passed over. Raises InputError when something named does not exist,
    a folder cannot be read, or nothing readable is found.
    """
    if not isinstance(source, (str, Path)):
        try:
            parts = list(source)
        except TypeError:
            parts = []
        if not parts or not all(isinstance(part, (str, Path)) for part in parts):
            allowed = "must be a path, a folder, a pattern, a list of those, or a DataFrame"
            raise InputError.of("source", source, allowed)
        return list(dict.fromkeys(path for part in parts for path in find_files(part, leave_out)))
    text = str(source)
    if not text or "\x00" in text:
        raise InputError.of("source", source, "must be a path, a folder or a pattern")
    try:
        path = Path(text).expanduser()
        path.exists()
    except (RuntimeError, OSError) as error:  # no such user, a name too long
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError.of("source", text, f"is no path here ({why})") from None
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise InputError.of("source", text, f"must be one of {', '.join(SUFFIXES)}")
        return [path]
    try:
        if path.is_dir():
            found = _files_below(path, leave_out)
        elif glob.has_magic(text):
            matches = [Path(p) for p in glob.glob(str(path), recursive=True)]
            found = [p for p in matches if _readable(p) and not _lies_in(p, leave_out)]
            found += [p for folder in matches if folder.is_dir() for p in _files_below(folder, leave_out)]
        else:
            raise InputError.of("source", text, "no such file or folder")
    except OSError as error:
        raise InputError.of("source", str(error.filename or text), f"cannot be read ({error.strerror})") from None
    if not found:
        raise InputError.of("source", text, f"matches no file of the kinds {', '.join(SUFFIXES)}")
    return sorted(set(found))


def _files_below(folder: Path, leave_out: Sequence[Path]) -> list[Path]:
    """Readable files below a folder; links to folders are followed, and a folder is read once however it is reached.

    Hidden folders are a store's own. Raises OSError for a folder that cannot be read.
    """
    found: list[Path] = []
    seen: set[Path] = set()
    pending = [folder]  # links wait until the end: a folder that is reached twice keeps its own name
    for start in pending:
        for name, folders, files in os.walk(start, onerror=_raise):
            here = Path(name)
            if here.resolve() in seen or _lies_in(here, leave_out):
                folders.clear()
                continue
            seen.add(here.resolve())
            folders[:] = [one for one in folders if not one.startswith(".")]
            pending += [here / one for one in sorted(folders) if (here / one).is_symlink()]
            found += [here / one for one in files if _readable(here / one)]
    return found


def _raise(error: OSError) -> None:
    raise error


def _lies_in(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in folders)


def _readable(path: Path) -> bool:
    """A file of a known kind that is not hidden (half-copied)."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def printable(text: str) -> str:
    """``text`` as one harmless line: control characters and bytes that are no UTF-8 are written as escapes.

    File names come from outside and may hold anything, terminal commands among them.
    """
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in _UNSHOWN else c for c in text)


def read_name(path: Path, kind: str = "candles") -> NamedFile:
    """Symbol and interval told by a hive path (``symbol=…/interval=…``), else by the file's name."""
    hive = dict(part.split("=", 1) for part in path.parts[:-1] if part.count("=") == 1)
    symbol, interval = hive.get("symbol"), hive.get("interval")
    match = (_CANDLES if kind == "candles" else _FUNDING).fullmatch(path.stem)
    if match is not None and symbol is None:
        # What an exchange writes needs no known quote: XVGIDRT-1m-2021-05
        of_archive = match["period"] is not None and match["symbol"].isupper()
        symbol = match["symbol"] if of_archive else read_symbol_like(match["symbol"])
    if match is not None and kind == "candles" and interval is None:
        interval = match["interval"]
    return NamedFile(path, read_symbol(symbol), _interval(interval), _market(path))


def _market(path: Path) -> str | None:
    """``spot`` or ``futures``: by the end of the name, else by the nearest folder (``data/futures/um/…``)."""
    if ending := _MARKET_ENDING.search(path.stem):
        return "spot" if ending[0].lower().endswith("spot") else "futures"
    told = next((part.lower() for part in reversed(path.parts[:-1]) if part.lower() in ("spot", "futures")), None)
    return "spot" if told is None and _DASHED_PAIR.match(path.stem) else told


def with_member(file: NamedFile, member: str, kind: str = "candles") -> NamedFile:
    """What an archive and the name of the one file in it tell together; BadFileError where they contradict."""
    inner = read_name(Path(Path(member).name), kind)
    other_symbol = file.symbol and inner.symbol and not same_symbol(file.symbol, inner.symbol)
    other_interval = file.interval and inner.interval and file.interval != inner.interval
    if other_symbol or other_interval:
        told = " ".join(part for part in (file.symbol, file.interval) if part)
        raise BadFileError(f"holds {member[:80]!r}, another symbol or interval than {told}")
    return file._replace(symbol=file.symbol or inner.symbol, interval=file.interval or inner.interval)


def holds_other_prices(path: Path) -> str | None:
    """Name of the archive folder that says this file holds no trade prices, None when it may."""
    return next((part for part in path.parts if part.lower() in _OTHER_PRICES), None)


def read_symbol(text: str | None) -> str | None:
    """Exchange id of a symbol as stores write it (``BTC_USDT_USDT``, ``BTC-USDT-SWAP``), None where it is none."""
    if text is None:
        return None
    if settled := _SETTLED.fullmatch(text.upper()):
        text = settled[1] + settled[2]
    elif dashed := _DASHED.fullmatch(text.upper()):
        base, quote, contract = dashed.groups()
        # The perpetual contract of a quote in dollars is margined in coins, and is another market than the spot one.
        ending = {None: "", "SWAP": "_PERP" if quote == "USD" else ""}.get(contract, f"_{contract}")
        text = f"{base}{quote}{ending}"
    try:
        return parse_symbol(text)
    except InputError:
        return None


def read_symbol_like(text: str | None) -> str | None:
    """The same where the text also ends like a symbol: words of other kinds are None."""
    symbol = read_symbol(text)
    return symbol if symbol is not None and _LIKE_A_SYMBOL.fullmatch(symbol) else None


def same_symbol(one: str, other: str) -> bool:
    """Whether two exchange ids are one symbol; some stores part base and quote (``BTC_USDT``)."""
    return one.replace("_", "") == other.replace("_", "")


def is_coin_margined(symbol: str) -> bool:
    """Whether the id is one of a contract that is margined in coins (``BTCUSD_PERP``, ``BTCUSD_250627``)."""
    return _COIN_MARGINED.fullmatch(symbol) is not None


def symbol_of_rows(texts: Iterable[str], named: str | None) -> str:
    """The one symbol of a file: ``named`` unless None, held against what its column of symbols says (``texts``).

    The column may name the base alone (``BTC``), or the kind of market. Raises BadFileError where it holds
    several symbols or another one, and where nothing tells a symbol.
    """
    told = {read_symbol(text) or text[:40] for text in texts if text.lower() not in _KINDS_OF_MARKET}
    if len(told) > 1:
        listed = ", ".join(sorted(told)[:5])
        raise BadFileError(f"holds rows of several symbols ({listed}): a file must hold one")
    for symbol in told:
        if named is None:
            named = read_symbol_like(symbol)
        elif not same_symbol(symbol, named) and not re.fullmatch(rf"{re.escape(symbol)}_?(?:{_QUOTES})", named):
            raise BadFileError(f"holds rows of {symbol}, not of {named}")
    if named is None:
        raise BadFileError("has a name that tells no symbol: say which")
    return named


def _interval(text: str | None) -> str | None:
    """Our spelling of an interval in a name (``1H`` is ``1h``); ``1M`` is a month and stays one."""
    if text is None or text in INTERVALS or text.endswith("M"):
        return text
    return text.lower() if text.lower() in INTERVALS else text
