"""`repeat`: an experiment's file to the same study again, and whether it is the same."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import optuna

from aione_lab.calibration.experiment import FILE, Experiment, code_fingerprint, read_json, versions
from aione_lab.calibration.judging import judged_by
from aione_lab.calibration.objective import objectives
from aione_lab.calibration.place import LEDGER_FILE, RESULTS_FILE, STUDY_FILE, read_entries
from aione_lab.calibration.run import run_experiment
from aione_lab.calibration.study import Calibration
from aione_lab.calibration.study_run import run_study
from aione_lab.calibration.trial_store import TrialStore
from aione_lab.engine.params import check_kind
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.lake.progress import ProgressCallback, progress_reporter
from aione_lab.lake.store import Lake


@dataclass(frozen=True)
class Repeated:
    """An experiment run again: whether every trial and the verdict are the same, and what changed if not."""

    study: Calibration
    same: bool
    differences: tuple[str, ...]  # of data, code and versions, whether or not the results are the same

    @property
    def sentence(self) -> str:
        """What came of it, in one sentence."""
        if self.same:
            aside = f" (although {'; '.join(self.differences)})" if self.differences else ""
            return f"Repeated bit for bit: every trial and the verdict are the same{aside}."
        why = "; ".join(self.differences) or "nothing that the experiment's file records"
        return f"Not the same study: what changed is {why}."


def repeat(
    path: str | Path, lake: Lake, *, spec: FeatureSpec | None = None, progress: ProgressCallback | bool | None = None
) -> Repeated:
    """Run the experiment of a file anew, beside what is there, and compare; nothing is written.

    ``path``: an ``experiment.json`` with its ``results.json`` and ``ledger.json`` beside it. Judged against the state
    of the ledger that the experiment pinned. Raises InputError where the results are missing: run it first.
    """
    check_kind("lake", lake, Lake)
    if not isinstance(path, str | os.PathLike):
        raise InputError.of("path", path, f"must be an experiment's folder or its {FILE}")
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    before = Experiment.load(path)
    results = path.with_name(RESULTS_FILE)
    if not results.exists():
        raise InputError.of("path", str(path), f"has no {RESULTS_FILE} beside it to compare with")
    digest = read_json(results).get("digest")
    pinned = read_entries(path.with_name(LEDGER_FILE), before)
    if pinned is None:
        raise InputError(f"{path.parent}: the study was stopped as it grew; run it again, which ends it, before this")
    made = before.replace(code=code_fingerprint(), versions=versions(), data={})
    if made.cluster:  # what its workers proposed is scored and judged again
        with progress_reporter(progress, f"calibrating {made.title}") as tell:
            tell("trials", 0, made.n_trials)
            study = run_study(made, lake, spec=spec, proposed=_proposed(path.with_name(STUDY_FILE), made))
            tell("trials", made.n_trials, made.n_trials)
    else:
        study = run_experiment(made, lake, folder=None, spec=spec, progress=progress)
    study = judged_by(study, pinned)
    return Repeated(study, study.digest == digest, tuple(before.differences(study.experiment)))


def _proposed(path: Path, experiment: Experiment) -> list[optuna.trial.FrozenTrial]:
    """The trials of a study's database."""
    if not path.exists():
        raise InputError.of("path", str(path), "is missing: a study of a cluster cannot be searched again without it")
    store = TrialStore(path, experiment.title, [one.direction for one in objectives(experiment.metric)])
    try:
        return store.trials()
    finally:
        store.close()
