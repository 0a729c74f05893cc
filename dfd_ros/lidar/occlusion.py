"""Culling of returns that a nearer surface hides from the camera.

The LiDAR does not sit where the camera does: past an object's edge it sees what the object hides from the camera, and
such a return lands among the object's own. The surfaces that hide it are known: the sweep shows them.

1. Order: returns are sorted by their direction from the LiDAR into columns of azimuth and, in each, by elevation.
2. Mesh: neighbouring columns are joined by a strip of triangles. No beam numbers are needed, lost returns only make
   triangles larger, and 16 beams make large ones as 128 make small ones.
3. Surfaces: a triangle is a piece of one surface where its corners' ranges differ by no more than on a surface seen at
   a grazing angle, or go on as they did below or above: on a plane (far ground) the inverse range grows evenly with
   the direction. Across a jump in range there is no surface: there the nearer side goes on, at its own range, for a
   part of the way to the farther return, since the edge lies somewhere between the two.
4. The pieces are drawn into the camera's image, the nearest wins, and a return that lies clearly behind what is drawn
   in its pixel is culled.

Measured by ray casting on the simulated vehicle's lots (`bench/projection.py`): 16, 32, 64 and 128 beams find 91, 96, 97
and 98 % of the hidden returns, and 69, 76, 84 and 87 % of what is culled is hidden; the rest lies within a beam's
spacing of an edge.

The LiDAR's frame is taken to have z along its spin axis (REP 103).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.distortion import intrinsics_of, pixel_of

# Spinning LiDARs fire every 0.1 to 0.4 degrees, with beams 0.1 degrees apart or more. A cell keeps its nearest return.
_COLUMN = math.radians(0.2)
_ROW = math.radians(0.1)
_WIDEST_COLUMNS = 3  # between joined columns: empty ones lie between where a LiDAR fires every 0.4 degrees
_WIDEST_ROWS = 10  # spacings of beams that a triangle may span: a car's windows, which return nothing
# Least sine of the angle at which the LiDAR sees a surface: below, it takes neighbours to tell it from a jump (ground is
# seen so beyond 25 m).
_GRAZING = np.float32(0.08)
_STEADY = np.float32(2.0)  # times the change of inverse range between neighbours that may follow on one surface
# How far the nearer side goes on across a jump. The edge may be anywhere in the gap, so a return that lands at this
# share of it is hidden with a chance of one minus the share. Simulated streets of 32 and 64 beams, made dense, are worse
# with less and with more.
_REACH = np.float32(0.8)
_REST = np.float32(1.0) - _REACH
_BEHIND = 0.03  # a return this fraction farther than a surface is hidden by it
# Barycentric coordinates: a triangle reaches this far beyond its edges, so that no seam shows between two.
_EDGE, _WHOLE = np.float32(-1e-4), np.float32(1.0 + 2e-4)
_NEAREST = 0.05  # metres before the camera: nearer surfaces are not drawn
_MOST_DRAWN = 64  # times the image's pixels that drawing may visit (a real sweep visits 4 at most): then it stops


def cull_occluded(
    depth: NDArray[np.float32], points: NDArray[np.float32], camera_from_lidar: Transform, camera: Camera
) -> int:
    """Set the hidden returns of a sparse depth image to NaN, in place; returns their number.

    A LiDAR without parallax to the camera (a translation of zero, as of a cloud given in the camera's own frame) sees
    what the camera sees: nothing is culled.

    Args:
        depth: (H, W) metres, NaN unknown: the projected sweep.
        points: (N, 3) contiguous, metres in the LiDAR frame: the sweep's returns in and around the image, finite.
        camera_from_lidar: The extrinsics.
        camera: The intrinsics, with distortion.
    """
    if not (len(points) and camera_from_lidar.translation.any()):
        return 0
    rotation = np.ascontiguousarray(camera_from_lidar.rotation, np.float64)
    translation = np.ascontiguousarray(camera_from_lidar.translation, np.float64)
    cells, start = _order(points, *_heading(rotation))
    corners = _corners(points, cells, rotation, translation, intrinsics_of(camera))
    surface = np.zeros((camera.width, camera.height), np.float32)  # by column: triangles are tall
    widest = _WIDEST_ROWS * _beam_rows(cells, start)
    joined = _join_columns(corners, cells, start)
    _draw_surfaces(corners, cells, start, joined, widest, translation, intrinsics_of(camera), surface)
    return _cull(depth, surface)


def _heading(rotation: NDArray[np.float64]) -> tuple[float, float]:
    """The camera's viewing direction (x, y) in the LiDAR's horizontal plane: azimuth counts from it, its seam behind."""
    x, y = rotation[2, :2]
    length = math.hypot(x, y)
    return (x / length, y / length) if length > 0.0 else (1.0, 0.0)


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _angle(y, x):  # type: ignore[no-untyped-def]
    """atan2 to 1e-5 rad (Abramowitz and Stegun, 4.4.49)."""
    smaller, larger = min(abs(x), abs(y)), max(abs(x), abs(y))
    q = smaller / larger if larger > 0.0 else 0.0
    q2 = q * q
    angle = q * (0.9998660 + q2 * (-0.3302995 + q2 * (0.1801410 + q2 * (-0.0851330 + q2 * 0.0208351))))
    if abs(y) > abs(x):
        angle = 0.5 * math.pi - angle
    if x < 0.0:
        angle = math.pi - angle
    return -angle if y < 0.0 else angle


@njit(nogil=True, cache=True, error_model="numpy")
def _order(points, heading_x, heading_y):  # type: ignore[no-untyped-def]
    """Returns by direction: cells (M, 2) int32, index of a cell's nearest point and row (0 the highest), sorted by row
    in each column of azimuth; and where each column starts (columns + 1)."""
    n = len(points)
    azimuth, elevation = np.empty(n, np.float32), np.empty(n, np.float32)
    left, right, low, high = np.inf, -np.inf, np.inf, -np.inf
    for i in range(n):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        ahead, beside = heading_x * x + heading_y * y, heading_x * y - heading_y * x
        azimuth[i] = a = np.float32(_angle(beside, ahead))
        elevation[i] = e = np.float32(_angle(z, math.sqrt(x * x + y * y)))
        left, right = min(left, a), max(right, a)
        low, high = min(low, e), max(high, e)
    columns, rows = int((right - left) / _COLUMN) + 1, int((high - low) / _ROW) + 1
    grid = np.full((columns, rows), -1, np.int32)
    filled = 0
    for i in range(n):
        column = min(int((azimuth[i] - left) / _COLUMN), columns - 1)
        row = min(int((high - elevation[i]) / _ROW), rows - 1)
        rival = grid[column, row]
        if rival < 0:
            filled += 1
            grid[column, row] = i
        elif _squared(points[i]) < _squared(points[rival]):
            grid[column, row] = i
    cells, start = np.empty((filled, 2), np.int32), np.empty(columns + 1, np.int32)
    at = 0
    for column in range(columns):
        start[column] = at
        for row in range(rows):
            if grid[column, row] >= 0:
                cells[at, 0], cells[at, 1] = grid[column, row], row
                at += 1
    start[columns] = at
    return cells, start


@njit(nogil=True, cache=True, inline="always")
def _squared(point):  # type: ignore[no-untyped-def]
    return point[0] * point[0] + point[1] * point[1] + point[2] * point[2]


@njit(nogil=True, cache=True, error_model="numpy")
def _corners(points, cells, rotation, translation, lens):  # type: ignore[no-untyped-def]
    """What drawing needs of each cell's return, (M, 10) float32: its direction from the LiDAR (3), range, place in the
    camera's frame (3), pixel u, v (NaN: none) and inverse depth."""
    corners = np.empty((len(cells), 10), np.float32)
    for m in range(len(cells)):
        point, corner = points[cells[m, 0]], corners[m]
        distance = math.sqrt(_squared(point))
        corner[3] = distance
        for axis in range(3):
            corner[axis] = point[axis] / distance
            corner[4 + axis] = (
                rotation[axis, 0] * point[0]
                + rotation[axis, 1] * point[1]
                + rotation[axis, 2] * point[2]
                + translation[axis]
            )
        corner[7], corner[8] = np.nan, np.nan
        corner[9] = 1.0 / corner[6]
        if corner[6] > _NEAREST:
            corner[7], corner[8] = pixel_of(corner[4] * corner[9], corner[5] * corner[9], lens)
    return corners


@njit(nogil=True, cache=True, error_model="numpy")
def _beam_rows(cells, start):  # type: ignore[no-untyped-def]
    """The median distance, in rows, between a return and the next one below in its column."""
    counts = np.zeros(int(math.pi / _ROW) + 2, np.int64)
    total = 0
    for column in range(len(start) - 1):
        for m in range(start[column], start[column + 1] - 1):
            counts[cells[m + 1, 1] - cells[m, 1]] += 1
            total += 1
    rows, below = 0, 0
    while 2 * below < total:
        rows += 1
        below += counts[rows]
    return max(rows, 1)


@njit(nogil=True, cache=True, error_model="numpy")
def _join_columns(corners, cells, start):  # type: ignore[no-untyped-def]
    """Whether each return lies on one surface with the next one below in its column, (M,) bool."""
    joined = np.zeros(len(cells), np.bool_)
    slope = np.zeros(len(cells), np.float32)  # of the inverse range between the two, by rows
    for column in range(len(start) - 1):
        first, last = start[column], start[column + 1] - 1
        for m in range(first, last):
            joined[m] = _are_joined(corners, m, m + 1)
            slope[m] = (1.0 / corners[m + 1, 3] - 1.0 / corners[m, 3]) / (cells[m + 1, 1] - cells[m, 1])
        for m in range(last - 2, first - 1, -1):
            joined[m] |= joined[m + 1] and 0.0 < slope[m] < _STEADY * slope[m + 1]
        for m in range(first + 1, last):
            joined[m] |= joined[m - 1] and 0.0 > slope[m] > _STEADY * slope[m - 1]
    return joined


@njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def _draw_surfaces(corners, cells, start, joined, widest, translation, lens, surface):  # type: ignore[no-untyped-def]
    """Join neighbouring columns by strips of triangles and draw each into `surface` (W, H), inverse depth."""
    budget = _MOST_DRAWN * surface.size
    last = -1
    for column in range(len(start) - 1):
        if start[column + 1] == start[column]:
            continue
        if last >= 0 and column - last <= _WIDEST_COLUMNS:
            a, b = start[last], start[column]
            end_a, end_b = start[last + 1] - 1, start[column + 1] - 1
            while (a < end_a or b < end_b) and budget > 0:
                # Go down by the side whose next return is the higher.
                by_a = b == end_b or (a < end_a and cells[a + 1, 1] <= cells[b + 1, 1])
                upper, beside = (a, b) if by_a else (b, a)
                top = min(cells[a, 1], cells[b, 1])
                bottom = max(cells[upper + 1, 1], cells[beside, 1])
                if bottom - top <= widest:
                    budget -= _draw_piece(corners, upper, beside, joined[upper], translation, lens, surface)
                if by_a:
                    a += 1
                else:
                    b += 1
        last = column


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _are_joined(corners, i, j):  # type: ignore[no-untyped-def]
    """Whether two returns can lie on one surface."""
    x, y, z = corners[i, 0] - corners[j, 0], corners[i, 1] - corners[j, 1], corners[i, 2] - corners[j, 2]
    nearer, along = min(corners[i, 3], corners[j, 3]), corners[i, 3] - corners[j, 3]
    return nearer * nearer * (x * x + y * y + z * z) >= (_GRAZING * _GRAZING) * along * along


@njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def _draw_piece(corners, upper, beside, is_joined, translation, lens, surface):  # type: ignore[no-untyped-def]
    """Draw what the triangle of a return, the next one below (on one surface if `is_joined`) and one beside shows of
    surfaces; returns how many pixels were drawn or tried."""
    i, j, k = upper, upper + 1, beside
    i_to_j, j_to_k, i_to_k = is_joined, _are_joined(corners, j, k), _are_joined(corners, i, k)
    if i_to_j + j_to_k + i_to_k >= 2:
        return _fill(_pixel(corners, i), _pixel(corners, j), _pixel(corners, k), _EDGE, _WHOLE, surface)
    # Let i be the nearest and k the farthest.
    if corners[j, 3] < corners[i, 3]:
        i, j, j_to_k, i_to_k = j, i, i_to_k, j_to_k
    if corners[k, 3] < corners[i, 3]:
        i, k, i_to_j, j_to_k = k, i, j_to_k, i_to_j
    if corners[k, 3] < corners[j, 3]:
        j, k, i_to_j, i_to_k = k, j, i_to_k, i_to_j
    if i_to_j:
        distance = np.float32(0.5) * (corners[i, 3] + corners[j, 3])
        third = _brought_to(distance, corners[k], translation, lens)
        return _fill(_pixel(corners, i), _pixel(corners, j), third, _EDGE, _REACH, surface)
    second = _brought_to(corners[i, 3], corners[j], translation, lens)
    third = _brought_to(corners[i, 3], corners[k], translation, lens)
    return _fill(_pixel(corners, i), second, third, _REST, _WHOLE, surface)


@njit(nogil=True, cache=True, inline="always")
def _pixel(corners, i):  # type: ignore[no-untyped-def]
    """A corner's pixel and inverse depth."""
    return corners[i, 7], corners[i, 8], corners[i, 9]


@njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def _brought_to(distance, corner, translation, lens):  # type: ignore[no-untyped-def]
    """Pixel and inverse depth of the point at another distance from the LiDAR in a corner's direction."""
    s = distance / corner[3]
    # The LiDAR stands at `translation` in the camera's frame.
    w = 1.0 / (translation[2] + s * (corner[6] - translation[2]))
    if not 0.0 < w < 1.0 / _NEAREST:
        return np.float32(np.nan), np.float32(np.nan), np.float32(w)
    x = translation[0] + s * (corner[4] - translation[0])
    y = translation[1] + s * (corner[5] - translation[1])
    u, v = pixel_of(x * w, y * w, lens)
    return np.float32(u), np.float32(v), np.float32(w)


@njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def _fill(first, second, third, least_first, most_third, surface):  # type: ignore[no-untyped-def]
    """Draw the part of a triangle of corners (u, v, inverse depth) that has at least this share of the first corner and
    at most that share of the third (barycentric coordinates); returns how many pixels were drawn or tried.

    Inverse depth is linear in the image.
    """
    width, height = surface.shape
    u0, v0, w0 = first
    u1, v1, w1 = second
    u2, v2, w2 = third
    area = (u1 - u0) * (v2 - v0) - (v1 - v0) * (u2 - u0)
    if not (0.0 < abs(area) < np.inf):  # NaN: a corner has no pixel
        return 0
    top, bottom = max(math.ceil(min(v0, v1, v2)), 0), min(math.floor(max(v0, v1, v2)), height - 1)
    left, right = max(math.ceil(min(u0, u1, u2)), 0), min(math.floor(max(u0, u1, u2)), width - 1)
    if top > bottom or left > right:
        return 0
    # Barycentric coordinates and the inverse depth by their growth along u and v.
    scale = np.float32(1.0) / area
    b1_u, b1_v = (v2 - v0) * scale, (u0 - u2) * scale
    b2_u, b2_v = (v0 - v1) * scale, (u1 - u0) * scale
    b0_v = -b1_v - b2_v
    w_u, w_v = b1_u * (w1 - w0) + b2_u * (w2 - w0), b1_v * (w1 - w0) + b2_v * (w2 - w0)
    w0 -= np.float32(0.5) * (abs(w_u) + abs(w_v))  # the farthest within a pixel, returns are not at its centre
    down = np.float32(top) - v0
    drawn = right - left + 1
    for column in range(left, right + 1):
        across = np.float32(column) - u0
        b1, b2 = across * b1_u + down * b1_v, across * b2_u + down * b2_v
        begin, end = _part_above(
            least_first, np.float32(1.0) - b1 - b2, b0_v, np.float32(0.0), np.float32(bottom - top)
        )
        begin, end = _part_above(_EDGE, b1, b1_v, begin, end)
        begin, end = _part_above(_EDGE, b2, b2_v, begin, end)
        begin, end = _part_above(-most_third, -b2, -b2_v, begin, end)
        if not begin <= end:
            continue
        w = w0 + across * w_u + down * w_v
        first_row, last_row = np.int32(math.ceil(begin)), np.int32(math.floor(end))
        w += np.float32(first_row) * w_v
        for row in range(top + first_row, top + last_row + 1):
            if w > surface[column, row]:
                surface[column, row] = w
            w += w_v
        drawn += last_row - first_row + 1
    return drawn


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _part_above(least, value, growth, begin, end):  # type: ignore[no-untyped-def]
    """The part of begin to end in which value + growth · t is not below `least`; empty: begin > end."""
    t = (least - value) / growth  # infinite, of the right sign, where nothing grows
    if growth > 0.0:
        return max(begin, t), end
    if growth < 0.0:
        return begin, min(end, t)
    return begin, (end if value >= least else begin - np.float32(1.0))


@njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def _cull(depth, surface):  # type: ignore[no-untyped-def]
    """Set depths behind the surface drawn in their pixel to NaN; returns their number."""
    height, width = depth.shape
    culled = 0
    for row in range(height):
        for column in range(width):
            if surface[column, row] * depth[row, column] > 1.0 + _BEHIND:
                depth[row, column] = np.nan
                culled += 1
    return culled
