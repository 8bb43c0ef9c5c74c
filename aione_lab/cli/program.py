"""The commands put together, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from aione_lab.cli import calibrate, dashboard, demo, doctor, drift, lab, lake, live, replays
from aione_lab.cli.options import EXAMPLES_EPILOG
from aione_lab.cli.output import say
from aione_lab.errors import AioneError

INTERRUPTED = 130  # 128 + SIGINT, as shells count it
# What a user's disk may refuse us; any other failing system call is a mistake of ours.
MACHINE = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO,
        errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG,
    }
)  # fmt: skip

app = typer.Typer(
    name="aione-lab",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXAMPLES_EPILOG,
)


def _version(asked: bool) -> None:
    if asked:
        from aione_lab import __version__

        typer.echo(f"aione-lab {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Research and backtesting of crypto futures on one-minute candles.

    Candles go into a lake, replay turns them into alerts and trades, and the result says whether it earned its costs.

    Exit codes: 0 done; 1 done in part, or the answer is no (a drift, a damaged
    lake, nothing promoted); 2 refused, with one line that says why; 130 stopped
    by Ctrl-C, which is how live ends: it exits with 0.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command("demo")(demo.demo)
app.command("lab")(lab.lab)
app.command("fetch")(lake.fetch)
app.command("import")(lake.import_)
app.command("audit")(lake.audit)
app.command("replay")(replays.replay)
app.command("calibrate")(calibrate.calibrate)
app.command("live")(live.live)
app.command("drift")(drift.drift)
app.command("dashboard")(dashboard.dashboard)
app.command("doctor")(doctor.doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit: 0 done, 1 done in part, 2 bad input (one line on stderr), 130 interrupted.

    Any other exception is a mistake of ours and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character gets "?", not a crash
    try:
        code = app(args=arguments, prog_name="aione-lab", standalone_mode=False)
    except AioneError as error:
        code = _refuse(str(error))
    except typer.Abort:
        code = INTERRUPTED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # the reader (head, less) has gone: nobody is there to be told
        sys.stderr.close()
        code = 1
    except OSError as error:
        if error.errno not in MACHINE:
            raise
        code = _refuse(f"{error.filename or 'the disk'}: {error.strerror}")
    except Exception as error:
        # Typer's usage errors, whichever click it carries: they alone can format themselves.
        if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
            raise
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "aione-lab"
        code = _refuse(f"{error.format_message()} (see '{where} --help')")
    if code == INTERRUPTED:
        typer.echo("interrupted; what was committed before stays", err=True)
    raise SystemExit(code if isinstance(code, int) else 0)


def _refuse(message: str) -> int:
    """One clear line, whatever the message holds."""
    say("error: " + " ".join(message.split()), err=True)
    return 2
