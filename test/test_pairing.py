"""A pair is never made across a transition, and every frame is accounted for."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfd_ros.capture.aperture import Aperture, ApertureReport, ApertureTimeline, Unlabelled
from dfd_ros.capture.pairing import Cause, Drop, Frame, Pair, Pairer, exposure_interval

MS = 1_000_000
SHAPE = (480, 640, "rgb8")


def report(aperture, start, settled, known, transitions=0, fault=False):
    return ApertureReport(Aperture(aperture), start * MS, settled * MS, known * MS, transitions, fault)


def frame(start, end, shape=SHAPE):
    return Frame(start * MS, end * MS, shape, None)


@dataclass
class TrueAperture:
    """The aperture as it really moved: (start of transition, settled, aperture it went to)."""

    moves: list[tuple[int, int, Aperture]] = field(default_factory=list)

    def during(self, start, end):
        """The aperture in force during all of [start, end], or None."""
        before = [move for move in self.moves if move[0] <= end]
        if not before or before[-1][1] > start:
            return None
        return before[-1][2]


@st.composite
def schedules(draw):
    """A random drive: how the aperture moved, and the frames that were taken, some lost, on a clock that is off."""
    moves, time = [], 0
    aperture = Aperture.SHALLOW
    for _ in range(draw(st.integers(2, 12))):
        settle = draw(st.integers(0, 30 * MS))
        moves.append((time, time + settle, aperture))
        time += settle + draw(st.integers(1, 120 * MS))
        aperture = draw(st.sampled_from([aperture.other, aperture.other, aperture]))
    frames, start = [], draw(st.integers(-20 * MS, 40 * MS))
    for _ in range(draw(st.integers(2, 20))):
        end = start + draw(st.integers(0, 40 * MS))
        if draw(st.integers(0, 4)):  # one in five is lost
            frames.append((start, end))
        start = end + draw(st.integers(1, 80 * MS))
    jitter = draw(st.integers(0, 3 * MS))
    clock_errors = draw(st.lists(st.integers(-jitter, jitter), min_size=len(frames), max_size=len(frames)))
    delays = draw(st.lists(st.integers(0, 60 * MS), min_size=40, max_size=40))
    lost_reports = draw(st.sets(st.integers(0, 11), max_size=3))
    repeated_reports = draw(st.sets(st.integers(0, 11)))
    return TrueAperture(moves), frames, jitter, clock_errors, delays, lost_reports, repeated_reports


@settings(max_examples=400, deadline=None)
@given(schedules())
def test_no_pair_is_made_across_a_transition(schedule):
    truth, frames, jitter, clock_errors, delays, lost_reports, repeated_reports = schedule
    pairer = Pairer(max_skew=10**12, tolerance=jitter)
    # Messages arrive with delays; each topic keeps its own order.
    arrivals = []
    last = 0
    for index, ((start, settled, aperture), delay) in enumerate(zip(truth.moves, delays, strict=False)):
        if index not in lost_reports:
            last = max(last, start + delay)
            told = ApertureReport(aperture, start, settled, start, transitions=index)
            arrivals.append((last, 0, told))
            if index in repeated_reports:
                arrivals.append((last, 0, replace(told, known_until=start + 1)))
    end_of_time = max([end for _, end in frames] + [settled for _, settled, _ in truth.moves]) + 200 * MS
    final_start, final_settled, final_aperture = truth.moves[-1]
    final = ApertureReport(final_aperture, final_start, final_settled, end_of_time, transitions=len(truth.moves) - 1)
    arrivals.append((max(last, end_of_time), 0, final))
    last = -(10**12)
    stamped = {}
    for number, ((start, end), error, delay) in enumerate(zip(frames, clock_errors, reversed(delays), strict=False)):
        last = max(last, end + delay)
        stamped[number] = (start, end)
        arrivals.append((last, 1, Frame(start + error, end + error, SHAPE, number)))
    outcomes = []
    for _, kind, message in sorted(arrivals, key=lambda arrival: arrival[:2]):
        outcomes += pairer.add_report(message) if kind == 0 else pairer.add_frame(message)
    outcomes += pairer.flush()
    seen = []
    for outcome in outcomes:
        if isinstance(outcome, Pair):
            for expected, taken in ((Aperture.SHALLOW, outcome.shallow), (Aperture.DEEP, outcome.deep)):
                assert truth.during(*stamped[taken.payload]) == expected
                seen.append(taken.payload)
        else:
            seen.append(outcome.frame.payload)
    assert sorted(seen) == sorted(stamped), "every frame comes out exactly once"


def test_alternating_frames_make_a_pair_each_two():
    pairer = Pairer(max_skew=200 * MS)
    outcomes = []
    for index in range(10):
        begin = 50 * index
        outcomes += pairer.add_report(report(index % 2, begin, begin + 10, begin, transitions=index))
        outcomes += pairer.add_frame(frame(begin + 20, begin + 24))
    outcomes += pairer.add_report(report(1, 450, 460, 600, transitions=9))
    assert [type(outcome) for outcome in outcomes] == [Pair] * 5
    assert outcomes[0].shallow.start == 20 * MS
    assert outcomes[0].deep.start == 70 * MS


def test_a_frame_waits_until_its_exposure_is_known_to_be_undisturbed():
    pairer = Pairer(max_skew=200 * MS)
    pairer.add_report(report(0, 0, 10, 10))
    assert pairer.add_frame(frame(20, 24)) == []
    (drop,) = pairer.add_report(report(1, 22, 40, 45, transitions=1))
    assert drop.cause == Unlabelled.TRANSITION


@pytest.mark.parametrize(
    ("shapes", "gap", "cause"),
    [((SHAPE, (240, 320, "rgb8")), 50, Cause.SIZE), ((SHAPE, SHAPE), 500, Cause.SKEW)],
)
def test_neighbours_that_do_not_fit_are_dropped_with_their_cause(shapes, gap, cause):
    pairer = Pairer(max_skew=100 * MS)
    pairer.add_report(report(0, 0, 1, 30))
    pairer.add_frame(frame(5, 9, shapes[0]))
    pairer.add_report(report(1, 30, 31, gap + 100, transitions=1))
    (drop,) = pairer.add_frame(frame(5 + gap, 9 + gap, shapes[1]))
    assert drop == Drop(frame(5, 9, shapes[0]), cause)


def test_a_stamp_that_goes_backwards_costs_that_frame_only():
    pairer = Pairer(max_skew=200 * MS)
    pairer.add_report(report(0, 0, 1, 40))
    pairer.add_frame(frame(20, 24))
    (drop,) = pairer.add_frame(frame(10, 14))
    assert drop.cause == Cause.BACKWARDS
    pairer.add_report(report(1, 40, 45, 100, transitions=1))
    (pair,) = pairer.add_frame(frame(60, 64))
    assert isinstance(pair, Pair)


def test_a_clock_set_back_restarts_the_pairing():
    pairer = Pairer(max_skew=200 * MS)
    pairer.add_report(report(0, 1000, 1001, 1100, transitions=5))
    pairer.add_frame(frame(1020, 1024))
    outcomes = []
    pairer.add_report(report(0, 0, 1, 20))
    for start in (2, 6, 10, 14):
        outcomes += pairer.add_frame(frame(start, start + 2))
    assert [drop.cause for drop in outcomes][:2] == [Cause.BACKWARDS] * 2
    pairer.add_report(report(1, 20, 21, 60, transitions=1))
    assert isinstance(pairer.add_frame(frame(30, 34))[-1], Pair)


def test_frames_of_another_clock_are_dropped_as_unknown_and_memory_is_bounded():
    pairer = Pairer(max_skew=200 * MS, max_waiting=3)
    pairer.add_report(report(0, 10_000, 10_001, 10_100))
    (drop,) = pairer.add_frame(frame(12, 16))  # long before: seconds since the sensor's start, say
    assert drop.cause == Unlabelled.UNKNOWN
    outcomes = [
        outcome for index in range(6) for outcome in pairer.add_frame(frame(10**6 + 10 * index, 10**6 + 10 * index + 4))
    ]
    assert [drop.cause for drop in outcomes] == [Unlabelled.UNKNOWN] * 3


def test_frames_during_a_fault_are_dropped_as_such():
    pairer = Pairer(max_skew=200 * MS)
    pairer.add_report(report(0, 0, 1, 5))
    pairer.add_report(report(0, 10, 10, 100, transitions=1, fault=True))
    (drop,) = pairer.add_frame(frame(20, 24))
    assert drop.cause == Unlabelled.FAULT


@pytest.mark.parametrize(("stamp_at", "start"), [("start", 100), ("middle", 95), ("end", 90)])
def test_a_stamp_marks_the_start_middle_or_end(stamp_at, start):
    assert exposure_interval(100, 10, stamp_at) == (start, start + 10)


def test_what_a_lost_report_hides_stays_unknown_when_the_next_is_told_again():
    pairer = Pairer(max_skew=200 * MS)
    pairer.add_report(report(0, 0, 1, 50))
    pairer.add_report(report(0, 150, 160, 150, transitions=2))  # between the two the aperture was deep
    pairer.add_report(report(0, 150, 160, 200, transitions=2))
    drops = pairer.add_frame(frame(100, 104)) + pairer.add_frame(frame(140, 144))
    assert [drop.cause for drop in drops] == [Unlabelled.TRANSITION] * 2


def test_a_history_is_whole_from_the_last_lost_report_on():
    timeline = ApertureTimeline()
    assert timeline.whole_since is None
    for told in (report(0, 0, 1, 5), report(0, 0, 1, 9), report(1, 10, 11, 10, transitions=1)):
        timeline.add(told)
        assert timeline.whole_since == 0
    for told in (report(1, 30, 31, 30, transitions=3), report(1, 30, 31, 35, transitions=3)):
        timeline.add(told)
        assert timeline.whole_since == 31 * MS
    timeline.add(report(0, 2, 3, 4))  # the clock was set back
    assert timeline.whole_since == 2 * MS


def test_a_lost_report_does_not_hide_a_fault():
    timeline = ApertureTimeline()
    timeline.add(report(0, 0, 1, 5))
    timeline.add(report(0, 30, 30, 40, transitions=3, fault=True))
    assert timeline.label(32 * MS, 34 * MS) == Unlabelled.FAULT


def test_light_through_a_moving_aperture_is_shared():
    timeline = ApertureTimeline()
    timeline.add(report(0, 0, 0, 10))
    timeline.add(report(1, 10, 20, 20, transitions=1))
    assert timeline.fraction(Aperture.DEEP, 0, 10 * MS) == 0.0
    assert timeline.fraction(Aperture.DEEP, 10 * MS, 20 * MS) == pytest.approx(0.5)
    assert timeline.fraction(Aperture.SHALLOW, 0, 20 * MS) == pytest.approx(0.75)
    assert timeline.fraction(Aperture.DEEP, 20 * MS, 30 * MS) == 1.0
    assert timeline.fraction(Aperture.DEEP, 30 * MS, 30 * MS) == 1.0
