"""`TrialStore`: a study's trials in an ordinary Optuna database, a batch a transaction.

Optuna itself writes trial by trial, each with several commits, which costs more than the whole replay of the trial.
Here a batch is on disk as a whole or not at all, so that no trial is ever half there or left RUNNING. What is written
are the rows of Optuna's own tables (``optuna.storages._rdb.models``; the tests read them back with plain Optuna).
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.distributions import distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy import URL, func, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from aione_lab.calibration.objective import Direction
from aione_lab.errors import InputError


class TrialStore:
    """The SQLite file at ``path`` with the study ``name``; made if it is not there, whole or not at all."""

    def __init__(self, path: Path, name: str, directions: Sequence[Direction]) -> None:
        fresh = not path.exists()
        if fresh:
            new = path.with_name(f"{path.name}.{os.getpid()}.new")
            for old in (new, new.with_name(f"{new.name}-journal")):  # a journal without its file would be replayed
                old.unlink(missing_ok=True)
            storage = _storage(new)
            optuna.create_study(storage=storage, study_name=name, directions=list(directions))
            storage.engine.dispose()
            os.replace(new, path)
        self.path = path
        self.name = name
        try:
            self._storage = _storage(path, known=fresh)
            study = optuna.load_study(study_name=name, storage=self._storage)
        except (SQLAlchemyError, StorageInternalError, KeyError, RuntimeError) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError.of("name", str(path), f"is no Optuna database with the study {name} ({why})") from None
        kept = [direction.name.lower() for direction in study.directions]
        if kept != list(directions):
            raise InputError.of("metric", list(directions), f"the study {name} in {path} has the directions {kept}")
        self._study_id = study._study_id

    def study(self) -> optuna.Study:
        """The study as plain Optuna sees it."""
        return optuna.load_study(study_name=self.name, storage=self._storage)

    def trials(self) -> list[FrozenTrial]:
        """Every trial on disk, by number."""
        return self._storage.get_all_trials(self._study_id)

    def append(self, trials: Sequence[FrozenTrial]) -> None:
        """Write finished trials, numbered on from what is there, in one transaction."""
        with Session(self._storage.engine) as session, session.begin():
            there = session.scalar(select(func.count()).where(models.TrialModel.study_id == self._study_id)) or 0
            if [trial.number for trial in trials] != list(range(there, there + len(trials))):
                raise InputError.of("trials", [trial.number for trial in trials], f"must go on from number {there}")
            first = (session.scalar(select(func.max(models.TrialModel.trial_id))) or 0) + 1
            rows = [_rows(trial, first + i, self._study_id) for i, trial in enumerate(trials)]
            for model in _MODELS:
                if batch := [row for one in rows for row in one[model]]:
                    session.execute(insert(model), batch)

    def close(self) -> None:
        """Let go of the file."""
        self._storage.engine.dispose()


_MODELS = (
    models.TrialModel,
    models.TrialParamModel,
    models.TrialValueModel,
    models.TrialUserAttributeModel,
    models.TrialSystemAttributeModel,
)


def _storage(path: Path, *, known: bool = False) -> RDBStorage:
    """Optuna's storage; of a file that is ``known`` to be of this Optuna it does not ask which one made it."""
    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    return RDBStorage(url, skip_compatibility_check=known, skip_table_creation=known)


def _rows(trial: FrozenTrial, trial_id: int, study_id: int) -> dict[type, list[dict[str, object]]]:
    """The rows of one trial, by table."""
    values = [models.TrialValueModel.value_to_stored_repr(value) for value in trial.values]
    return {
        models.TrialModel: [
            {
                "trial_id": trial_id,
                "number": trial.number,
                "study_id": study_id,
                "state": trial.state,
                "_datetime_start_utc": _naive_utc(trial.datetime_start),
                "_datetime_complete_utc": _naive_utc(trial.datetime_complete),
            }
        ],
        models.TrialParamModel: [
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": trial.distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(trial.distributions[name]),
            }
            for name, value in trial.params.items()
        ],
        models.TrialValueModel: [
            {"trial_id": trial_id, "objective": i, "value": stored, "value_type": kind}
            for i, (stored, kind) in enumerate(values)
        ],
        models.TrialUserAttributeModel: [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            for key, value in trial.user_attrs.items()
        ],
        models.TrialSystemAttributeModel: [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            for key, value in trial.system_attrs.items()
        ],
    }


def _naive_utc(time: datetime.datetime | None) -> datetime.datetime | None:
    """Optuna keeps local times in memory and UTC on disk, neither with a zone."""
    return None if time is None else time.astimezone(datetime.UTC).replace(tzinfo=None)
