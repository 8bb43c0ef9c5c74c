"""Options that several commands share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

from aione_lab.cli.output import listed, output_file
from aione_lab.errors import InputError, nearest

if TYPE_CHECKING:
    from aione_lab.lake import Lake
    from aione_lab.settings import Config, Costs

    AnyConfig = TypeVar("AnyConfig", bound=Config)

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_LAKE = "data_lake"
EXAMPLES_EPILOG = "New here? Try: aione-lab demo"

LakeFolder = Annotated[
    str, typer.Option("--lake", metavar="DIR", help="Folder of the lake; to read one also s3://bucket/prefix.")
]
LakeToWrite = Annotated[str, typer.Option("--lake", metavar="DIR", help="Folder of the lake.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output and nothing else.")]
Start = Annotated[
    str | None,
    typer.Option("--start", metavar="TIME", help="First candle, ISO date or time (UTC unless it says otherwise)."),
]
End = Annotated[str | None, typer.Option("--end", metavar="TIME", help="End, exclusive.")]


def number(text: str | float) -> float:
    """An option's number; the message quotes what was given."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number") from None


def whole_number(text: str | int) -> int:
    """An option's whole number; the message quotes what was given."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no whole number") from None


def a_folder(text: str | Path) -> Path:
    """An option's folder; an empty text, as of a variable that is not set, is none, and not the one we are in."""
    if not str(text).strip():
        raise typer.BadParameter(f"{text!r} names no folder")
    return Path(text)


def by_option(options: Mapping[str, str]) -> Callable[[Command], Command]:
    """A command whose refusals name what was typed: arguments of the library → options of the command."""

    def named(command: Command) -> Command:
        @functools.wraps(command)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return command(*args, **kwargs)
            except InputError as error:
                # n_trials=5: …, url: …, space['tp_mult']=…
                told = re.fullmatch(r"([\w.]+)([=:\[].*)", str(error), re.DOTALL)
                if told is None or told[1] not in options:
                    raise
                raise InputError(f"{options[told[1]]}{told[2]}") from None

        return cast("Command", run)

    return named


def is_address(place: str) -> bool:
    """Whether ``--lake`` names no folder but a lake in an object store."""
    return "://" in place


def shown_place(place: str) -> str:
    """``place`` for a terminal: an address may hold credentials."""
    return f"{place.partition('://')[0]}://…" if is_address(place) else place


def open_lake(folder: str) -> Lake:
    """The lake of a command that reads; a folder that is not there is refused, not made."""
    from aione_lab.lake import Lake

    if not is_address(folder) and not (folder.strip() and Path(folder).expanduser().is_dir()):
        raise InputError.of(
            "--lake",
            folder,
            "no such folder; fill one with 'aione-lab import' or 'fetch', or try 'aione-lab demo'",
        )
    return Lake(folder)


def check_outputs(paths: dict[str, Path | None]) -> None:
    """Refuse output files (by option) that cannot be made or are the same, before hours are spent on them."""
    taken: dict[Path, str] = {}
    for option, path in paths.items():
        if path is None:
            continue
        target = output_file(path, option)
        if target in taken:
            raise InputError.of(option, str(path), f"is the file of {taken[target]} too; must be another one")
        taken[target] = option


def known_symbol(lake: Lake, symbol: str, interval: str | None, argument: str = "symbol") -> str:
    """The exchange id of ``symbol``; refused, saying what there is, where the lake does not hold it."""
    from aione_lab.units import interval_ms, parse_symbol

    name = parse_symbol(symbol, argument)
    if interval is not None:
        interval_ms(interval, "--interval")
    there = lake.symbols(interval)
    if name in there:
        return name
    kind = "candles" if interval is None else f"{interval} candles"
    if not there:
        raise InputError.of(argument, symbol, f"the lake {lake.root} holds no {kind} at all")
    near = nearest(name, there)
    hint = f"did you mean {near}? " if near is not None else ""
    if others := lake.intervals(name):
        hint = f"it has {', '.join(others)}; "
    raise InputError.of(argument, symbol, f"has no {kind} in the lake {lake.root}; {hint}there: {listed(there, 12)}")


def loaded_config(kind: type[AnyConfig], path: Path, option: str) -> AnyConfig:
    """The configuration in a file; what is wrong with it is told with the option that named the file."""
    try:
        return kind.load(path)
    except InputError as error:
        text = str(error).removeprefix(str(InputError.of("path", str(path), "")))
        raise InputError.of(option, str(path), text) from None


def costs_of(fee: float | None, slippage_bps: float | None) -> Costs:
    """Costs with what ``--fee`` and ``--slippage-bps`` give of them."""
    from aione_lab.settings import Costs

    costs = Costs()
    for field, value, option in (("fee", fee, "--fee"), ("slippage_bps", slippage_bps, "--slippage-bps")):
        if value is not None:
            costs = _with_cost(costs, field, value, option)
    return costs


def _with_cost(costs: Costs, field: str, value: float, option: str) -> Costs:
    """``costs`` with one of them given; a refusal names the option."""
    try:
        return type(costs)(**{**costs.model_dump(), field: value})
    except InputError as error:
        raise InputError(f"{option}{str(error).removeprefix(f'Costs.{field}')}") from None
