"""The waiting line against a plain twin, the breaker, and how often a symbol may come again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aione_lab.calibration.queue_order import (
    FAILURES,
    HIGH,
    NORMAL,
    QUEUED,
    QUEUED_HIGH,
    QUEUED_URGENT,
    REST_S,
    URGENT,
    Breaker,
    History,
    WaitingLine,
)
from aione_lab.calibration.queue_settings import QueueSettings

SETTINGS = QueueSettings()
FREE = float("-inf")


def free(_: str) -> float:
    return FREE


def put(line: WaitingLine, symbol: str, priority: float, now: float, state: str = QUEUED) -> None:
    line.put((symbol, "1m"), priority, state, now)


def take(line: WaitingLine, now: float) -> str | None:
    task = line.take(now, free)
    return None if task is None else task.key[0]


def test_urgent_is_the_priority_with_which_an_alert_asks() -> None:
    from aione_lab.backtest import stages

    assert stages.URGENT == URGENT < HIGH < NORMAL
    assert stages.CALIBRATION_PAUSE_MS == 3_600_000 * SETTINGS.urgent_hours


def test_urgent_comes_before_high_before_normal_and_equals_in_turn() -> None:
    line = WaitingLine(SETTINGS)
    for symbol, priority in [("A", NORMAL), ("B", NORMAL), ("C", HIGH), ("D", URGENT), ("E", HIGH), ("F", URGENT)]:
        put(line, symbol, priority, 0.0)
    assert [take(line, 0.0) for _ in range(7)] == ["D", "F", "C", "E", "A", "B", None]


def test_waiting_raises_a_task_over_a_fresh_more_urgent_one() -> None:
    line = WaitingLine(SETTINGS)
    put(line, "OLD", NORMAL, 0.0)
    put(line, "HIGH", HIGH, 21 * 60.0)  # 20 minutes of waiting are worth the 0.2 between normal and high
    assert take(line, 21 * 60.0) == "OLD"
    put(line, "NEWER", NORMAL, 2 * 60.0)
    assert take(line, 21 * 60.0) == "HIGH"  # the other has waited 19 minutes only


def test_a_duplicate_is_merged_and_the_more_urgent_wins() -> None:
    line = WaitingLine(SETTINGS)
    put(line, "A", NORMAL, 0.0)
    put(line, "B", NORMAL, 1.0)
    put(line, "B", URGENT, 2.0, QUEUED_URGENT)
    put(line, "B", HIGH, 3.0, QUEUED_HIGH)
    assert len(line) == 2
    task = line.get(("B", "1m"))
    assert task is not None and (task.priority, task.state, task.since) == (URGENT, QUEUED_URGENT, 1.0)
    assert [take(line, 3.0), take(line, 3.0), take(line, 3.0)] == ["B", "A", None]


def test_intervals_of_a_symbol_are_tasks_of_their_own() -> None:
    line = WaitingLine(SETTINGS)
    line.put(("A", "1m"), NORMAL, QUEUED, 0.0)
    line.put(("A", "5m"), NORMAL, QUEUED, 0.0)
    assert len(line) == 2 and line.drop(("A", "1m")) and not line.drop(("A", "1m")) and len(line) == 1


def test_priorities_are_cut_to_the_range_of_the_settings() -> None:
    line = WaitingLine(SETTINGS)
    put(line, "A", 7.0, 0.0)
    put(line, "B", -3.0, 0.0)
    assert {task.key[0]: task.priority for task in line} == {"A": 1.0, "B": 0.1}


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9), st.sampled_from([URGENT, HIGH, NORMAL, 0.2, 1.0, -1.0, 5.0])),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 1.0, 59.0, 600.0, 1_200.0, 7_200.0])),
        st.tuples(st.just("take")),
        st.tuples(st.just("drop"), st.integers(0, 9)),
    ),
    max_size=60,
)


@given(EVENTS, st.sampled_from([0.001, 0.01, 0.5]))
def test_any_sequence_comes_out_as_from_a_plain_list_that_is_sorted_anew_each_time(events: list, decay: float) -> None:
    line, plain, now = WaitingLine(QueueSettings(urgency_decay=decay)), [], 0.0

    def first() -> list:
        """The twin: every row is [symbol, priority, since]; a stable sort keeps the order of the puts among equals."""
        return sorted(plain, key=lambda row: max(0.1, row[1] - decay * ((now - row[2]) / 60.0)))[0]

    for event, *values in events + [("take",)] * 12:
        if event == "put":
            symbol, priority = f"S{values[0]}", min(max(values[1], 0.1), 1.0)
            put(line, symbol, values[1], now)
            same = [row for row in plain if row[0] == symbol]
            if same:
                same[0][1] = min(same[0][1], priority)
            else:
                plain.append([symbol, priority, now])
        elif event == "wait":
            now += values[0]
        elif event == "drop":
            symbol = f"S{values[0]}"
            assert line.drop((symbol, "1m")) == any(row[0] == symbol for row in plain)
            plain = [row for row in plain if row[0] != symbol]
        elif plain:
            expected = first()
            plain.remove(expected)
            assert take(line, now) == expected[0]
        else:
            assert take(line, now) is None
        assert len(line) == len(plain)
    assert len(line) == 0


@given(
    st.lists(st.tuples(st.floats(1.0, 600.0), st.integers(0, 3)), min_size=200, max_size=200),
    st.sampled_from([NORMAL, 1.0]),
)
def test_no_task_starves_however_many_urgent_ones_come(steps: list, priority: float) -> None:
    """Between two takings up to three urgent tasks come in, and only one goes out; an old one is still taken."""
    line, now, waiting, behind = WaitingLine(SETTINGS), 0.0, True, 0
    put(line, "OLD", priority, 0.0)
    most = 60.0 * (priority - 0.1) / 0.01 + 1e-6  # seconds after which it is as urgent as anything
    number = 0
    for seconds, urgent in steps:
        now += seconds
        for _ in range(urgent):
            put(line, f"U{number}", URGENT, now)
            number += 1
            behind += now < most  # what comes later than that cannot overtake it
        if take(line, now) == "OLD":
            waiting = False
            break
        behind -= 1
        if now > most:
            assert behind >= 0, "it was overtaken by a task that came when nothing was more urgent"
    while waiting:
        waiting = take(line, now) != "OLD"
        behind -= waiting
        assert now < most or behind >= 0


def test_a_clock_that_jumps_back_does_not_lower_a_task() -> None:
    line = WaitingLine(SETTINGS)
    put(line, "A", NORMAL, 1_000.0)
    task = line.get(("A", "1m"))
    assert task is not None and line.effective(task, 0.0) == NORMAL


def test_a_symbol_that_is_held_back_lets_the_others_pass() -> None:
    line = WaitingLine(SETTINGS)
    put(line, "A", URGENT, 0.0)
    put(line, "B", NORMAL, 0.0)
    held = {"A": 600.0}
    until = lambda symbol: held.get(symbol, FREE)  # noqa: E731
    assert line.ready_in(0.0, until) == 0.0
    taken = line.take(0.0, until)
    assert taken is not None and taken.key[0] == "B"
    assert line.take(599.0, until) is None and line.ready_in(599.0, until) == 1.0
    taken = line.take(600.0, until)
    assert taken is not None and taken.key[0] == "A"
    assert line.ready_in(600.0, until) is None


def test_three_failures_in_a_row_rest_a_symbol_for_ten_minutes() -> None:
    breaker = Breaker()
    assert (FAILURES, REST_S) == (3, 600.0)
    assert not breaker.failed("A", 0.0) and not breaker.failed("A", 1.0)
    breaker.succeeded("A")
    assert not breaker.failed("A", 2.0) and not breaker.failed("A", 3.0)
    assert breaker.held_until("A") == FREE
    assert breaker.failed("A", 4.0) and breaker.held_until("A") == 604.0
    assert breaker.held_until("B") == FREE
    assert breaker.failed("A", 604.0) and breaker.held_until("A") == 1_204.0  # one attempt after the rest, not three
    breaker.succeeded("A")
    assert breaker.held_until("A") == FREE and not breaker.failed("A", 2_000.0)


def test_a_symbol_is_calibrated_once_a_day_and_urgent_once_in_six_hours() -> None:
    history = History(SETTINGS)
    hour = 3_600.0
    key = ("A", "1m")
    assert history.may_recalibrate(key, 0.0) and history.may_be_urgent("A", 0.0)
    history.calibrated(key, 0.0)
    history.urgent("A", 0.0)
    assert not history.may_recalibrate(key, 24 * hour - 1) and history.may_recalibrate(key, 24 * hour)
    assert not history.may_be_urgent("A", 6 * hour - 1) and history.may_be_urgent("A", 6 * hour)
    assert history.may_recalibrate(("A", "5m"), 0.0) and history.may_be_urgent("B", 0.0)
    history.forget(key)
    assert history.may_recalibrate(key, 1.0)
