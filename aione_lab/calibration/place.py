"""A study's folder: its files, whose it is, and the state of the ledger that it is judged by."""

from __future__ import annotations

import re
from pathlib import Path

from aione_lab.calibration.experiment import FILE, Experiment, read_experiment, read_json
from aione_lab.calibration.hidden import FILE as HIDDEN_FILE
from aione_lab.calibration.ledger import Entries
from aione_lab.calibration.plan import design_differences
from aione_lab.errors import InputError

STUDY_FILE = "study.sqlite3"
RESULTS_FILE = "results.json"
LEDGER_FILE = "ledger.json"
N_TRIALS = "n_trials"  # in ledger.json: of the study that it was pinned for
_LEFT = re.compile(rf"\.lock|\.{re.escape(FILE)}\.[0-9a-f]{{12}}\.tmp")  # of one that was killed as it began


def make_place(place: Path) -> None:
    """Make a study's folder, or take one that is there. InputError for one that holds anything but a study."""
    try:
        new = not place.exists()
        place.mkdir(parents=True, exist_ok=True)
        own = new or (place / FILE).exists()
        others = [] if own else [path.name for path in place.iterdir() if not _LEFT.fullmatch(path.name)]
    except (OSError, ValueError) as error:
        raise InputError.of("folder", str(place), f"cannot be used ({error})") from None
    if others:
        raise InputError.of("name", place.name, f"is a folder with other files ({place}); take another name")


def settle(place: Path, experiment: Experiment) -> Experiment | None:
    """Make sure that ``place`` is this experiment's; the one that was there before, None: a new one."""
    if not (place / FILE).exists():
        experiment.save(place)
        return None
    before = read_experiment(place)
    if before.design != experiment.design:
        names = "; ".join(design_differences(before, experiment))
        raise InputError.of("name", place.name, f"holds another study ({names}); take another name")
    if experiment.n_trials != before.n_trials and (place / HIDDEN_FILE).exists():
        raise InputError.of(
            "n_trials",
            experiment.n_trials,
            f"the hidden span of {place} was revealed after {before.n_trials} trials; take another name",
        )
    if experiment.n_trials < before.n_trials:
        allowed = f"must be at least {before.n_trials}, as many as the study in {place} has; or take another name"
        raise InputError.of("n_trials", experiment.n_trials, allowed)
    return before


def read_entries(path: Path, experiment: Experiment) -> dict[str, Entries] | None:
    """The pinned state of the ledger; None: it was pinned when the study was shorter."""
    kept = read_json(path)
    if kept.get(N_TRIALS, experiment.n_trials) != experiment.n_trials:
        return None
    try:
        return {title: Entries.from_json(kept[title]) for title in experiment.titles}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: holds no state of the ledger ({error!r})") from None
