"""What commands print: JSON for machines, tables for people, files that open safely."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from aione_lab.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 120  # where nobody can see the line's end, a table must not lose its columns
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def plain(value: Any) -> Any:
    """``value`` as JSON knows it: NaN and infinities null, times ISO, numpy numbers plain, text UTF-8."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, os.PathLike):
        value = str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()  # a file name may hold half surrogates
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def emit_json(value: Any) -> None:
    """Write one JSON document to standard output."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=2)
    typer.echo(re.sub(r"[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text))  # json leaves these raw


def shown(text: str) -> str:
    """``text`` without what would steer a terminal (see ``printable``, which takes pandas to load)."""
    if text.isprintable():
        return text
    from aione_lab.lake.names import printable

    return printable(text)


def say(text: str, err: bool = False) -> None:
    """Print lines for people; what would steer their terminal is shown as an escape."""
    typer.echo("\n".join(map(shown, text.split("\n"))), err=err)


def listed(names: Sequence[str], most: int) -> str:
    """The first ``most`` names, and how many there are beside."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def console() -> Console:
    """Standard output as rich sees it: colours on a terminal only, wide where it is piped."""
    from rich.console import Console

    on_terminal = Console().is_terminal
    return Console(width=None if on_terminal else PIPE_WIDTH, highlight=False, markup=False, soft_wrap=not on_terminal)


def table(*columns: str, title: str | None = None, numbers_from: int = 1) -> Table:
    """An empty table; columns from ``numbers_from`` on are aligned right."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, title_style="bold")
    for place, name in enumerate(columns):
        made.add_column(name, justify="right" if place >= numbers_from else "left")
    return made


def add_row(made: Table, *cells: object) -> None:
    """A row whose texts are shown as they are: names come from outside and may look like markup."""
    from rich.text import Text

    made.add_row(*(Text(shown(str(cell))) for cell in cells))


def safe_cell(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets an apostrophe in front; numbers stay numbers.

    Line breaks become spaces: a lone carriage return would end the row for some readers.
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\r", " ").replace("\n", " ")
    return "'" + text if value.startswith(FORMULA_STARTS) else text


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write ``frame`` (no index) as CSV, whole or not at all; times ISO, texts safe to open in a spreadsheet."""
    import pandas as pd

    shown = frame.copy()
    for name in shown.columns:
        column = shown[name]
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            shown[name] = column.map(lambda time: time.isoformat())
        elif not pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            shown[name] = column.astype(object).map(safe_cell)
    write_whole(path, lambda temporary: shown.to_csv(temporary, index=False), "--trades-csv")


def output_file(path: Path, option: str) -> Path:
    """The file that ``path`` means, links followed; refused where none can be made or something else is there.

    Folders above it that are not there yet are made with the file.
    """
    try:
        target = path.resolve()
        above = next(folder for folder in target.parents if folder.exists())
        mode = target.stat().st_mode if target.exists() else stat.S_IFREG
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a ring of links, a null byte
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError.of(option, str(path), f"is no place for a file ({why})") from None
    if not above.is_dir():
        raise InputError.of(option, str(path), f"is no place for a file ({above} is no folder)")
    if stat.S_ISDIR(mode):
        raise InputError.of(option, str(path), "is a folder; must be a file to write")
    if not stat.S_ISREG(mode):
        raise InputError.of(option, str(path), "is there and is no regular file")
    return target


def write_whole(path: Path, write: Callable[[Path], object], option: str) -> None:
    """Let ``write`` fill a file beside ``path`` and put it in place, so that no half file is ever seen."""
    from aione_lab.files import make_folder

    target = output_file(path, option)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        make_folder(target.parent)
        write(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise InputError.of(option, str(path), f"cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)
