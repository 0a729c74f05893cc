"""The simulated vehicle's node: a frame shows what the aperture did, and where nobody knows that, none is taken."""

from conftest import wait_until
from dfd_msgs.msg import ApertureState, Exposure

from dfd_ros.capture.aperture import Aperture, ApertureReport, Mode
from dfd_ros.nodes.base import latched_qos
from dfd_ros.nodes.convert import report_message
from dfd_ros.nodes.sim_node import SimNode
from dfd_ros.stamps import nanoseconds

MS = 1_000_000
SHALLOW, DEEP = Aperture.SHALLOW, Aperture.DEEP


def test_no_picture_is_taken_where_reports_of_the_aperture_were_lost(bench):
    sim = bench.run(SimNode, frame_rate=20.0, exposure_times=(0.001, 0.004), duration=1.0, width=64, height=64)
    exposures = bench.listen(Exposure, "exposure")
    aperture = bench.publisher(ApertureState, "aperture/state", latched_qos(depth=100))
    told = [(SHALLOW, 0, known, 0) for known in (0, 5, 55, 105)]
    told += [(DEEP, 130, known, 1) for known in (155, 205)]
    # Lost: shallow from 220, deep from 240, shallow from 260.
    told += [(DEEP, 290, known, 4) for known in (290, 305, 355, 405)]
    for index, start, known, transitions in told:
        report = ApertureReport(index, start * MS, (start + 5) * MS, known * MS, transitions)
        aperture.publish(report_message(report, 2.8, Mode.ALTERNATE, "camera"))
    assert wait_until(lambda: len(exposures) == 8), len(exposures)
    taken = {nanoseconds(e.header.stamp) // MS: round(e.exposure_time * 1e3) for e in exposures}
    assert taken == {0: 1, 50: 1, 100: 1, 150: 4, 200: 4, 300: 4, 350: 4, 400: 4}
    assert sim.diagnostics.total("missed") == 1
