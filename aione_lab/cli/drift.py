"""``drift``: did a session decide what a replay of the lake decides, and if not, why?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aione_lab.cli.options import DEFAULT_LAKE, Json, LakeFolder, by_option, open_lake
from aione_lab.cli.output import add_row, console, emit_json, say, table
from aione_lab.errors import InputError
from aione_lab.units import iso

SHOWN = 20


@by_option({"journal": "JOURNAL", "lake": "--lake"})
def drift(
    journal: Annotated[Path, typer.Argument(metavar="JOURNAL", help="Folder of a session's journal.")],
    lake: LakeFolder = DEFAULT_LAKE,
    as_json: Json = False,
) -> None:
    """Replay a session's journal from the lake and name the cause of every difference.

    Exit code 0 and one line where the session decided what a replay decides, 1
    where something differs: a candle was revised or is missing, the lake lacks
    the warm-up, a close of the reference or a funding rate came too late, other
    thresholds or another version decided, orders were filled otherwise.

    The lake is the one that the session appended to (live --lake DIR).

    Examples:

      aione-lab drift experiments/live
      aione-lab drift experiments/live --lake data_lake --json
    """
    from aione_lab.live.drift_check import drift as compare
    from aione_lab.live.journal import Journal

    if not journal.is_dir():
        raise InputError.of("journal", str(journal), "no such folder; 'aione-lab live --journal DIR' makes one")
    found = compare(Journal(journal), open_lake(lake))
    if as_json:
        emit_json(found.to_dict())
    else:
        say(found.sentence)
        if not found.clean:
            shown = table("time", "symbol", "what", "cause", "recorded", "replayed", numbers_from=6)
            for one in found.differences[:SHOWN]:
                add_row(shown, iso(one.timestamp)[:16], one.symbol, one.what, one.cause, one.recorded, one.replayed)
            console().print(shown)
            if len(found.differences) > SHOWN:
                say(f"and {len(found.differences) - SHOWN} more; --json has them all")
    if not found.clean:
        raise typer.Exit(1)
