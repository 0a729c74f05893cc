"""What the camera sees of a scene, without defocus: the compiled renderer.

Which surface a pixel shows is found part by part: each is intersected with the rays of the pixels that its bounding
box covers on the image, the nearest hit is kept (a z-buffer whose depths are those of a ray caster).

Surfaces are matt (Lambert), lit by the sun with hard shadows and by the sky, with a share of mirrored sky (Schlick's
Fresnel term) on glossy ones. Textures are filtered over the pixel's footprint: mip maps chosen by the footprint's
short side, several taps along its long one (as graphics hardware does, "anisotropic"). In pixels on a border between
faces or shadows, what is seen and whether the sun shines there are found at several points; the light is computed once
for each face among them, at the middle of the points that show it (multisampling).

Kernels that allocate nothing are compiled without reference counting: see `trace`.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.geometry import Camera, Transform
from dfd_ros.sim.scene import CONVEX, SceneArrays, Solids, Textures
from dfd_ros.sim.shadow import CELL, ShadowGrid
from dfd_ros.sim.trace import (
    MISS,
    WHITE,
    along,
    dot,
    hit_part,
    hit_round,
    is_wrapped,
    normal_at,
    placed,
    plane_normal,
    rotated,
    sample,
    texture_point,
    turned,
)

_FAR = 1e6  # metres: farther than anything
_NEAR = 0.01  # metres: a box that comes nearer than this may be anywhere on the image
_MAX_SIDES = 64  # of a convex part
_EPSILON = 1e-3  # metres: shadow rays start this far off the surface
_MAX_TAPS = 8  # texture samples along the footprint's long side
_GRAZING = 0.02  # smallest |cosine| for which a footprint is computed
_HAZE = 1.0 / 900.0  # 1/m: clear air, visual range some 3 km (Koschmieder)
_GROUND_BOUNCE = 0.35  # light from below relative to the sky's
_SCHLICK_GLASS = 0.04  # reflectance of glass and varnish at normal incidence, times gloss


class Viewpoint(NamedTuple):
    """A pinhole camera in the world: origin (3,), rotation (3, 3) world from camera, intrinsics and size in pixels."""

    origin: NDArray[np.float64]
    rotation: NDArray[np.float64]
    fx: float
    fy: float
    cx: float
    cy: float
    height: int
    width: int


def viewpoint(camera: Camera, world_from_camera: Transform) -> Viewpoint:
    """The camera at this place; its distortion is not regarded."""
    return Viewpoint(
        np.ascontiguousarray(world_from_camera.translation, np.float64),
        np.ascontiguousarray(world_from_camera.rotation, np.float64),
        *(float(camera.fx), float(camera.fy), float(camera.cx), float(camera.cy)),
        *camera.shape,
    )


@njit(cache=True, nogil=True, fastmath=True)
def trace_rows(scene: SceneArrays, view: Viewpoint, top, bottom, picture, depth, key):
    """Trace the pixel centres of rows top to bottom.

    Args:
        scene: The scene.
        view: The camera.
        top, bottom: Rows to do.
        picture: (H, W, 3) float32; gets linear light.
        depth: (H, W) float32; gets z in metres, NaN for the sky.
        key: (H, W) int32; gets 2 · face + in sunlight, −1 for the sky.
    """
    trace_depth(scene, view, top, bottom, depth, key)
    _light_rows(scene, view, top, bottom, picture, depth, key)


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _light_rows(scene: SceneArrays, view: Viewpoint, top, bottom, picture, depth, key):
    """`trace_rows` where `key` (H, W) already holds the faces."""
    for row in range(top, bottom):
        y = (row - view.cy) / view.fy
        for column in range(view.width):
            x = (column - view.cx) / view.fx
            face, z, lit = key[row, column], np.float64(depth[row, column]), False
            if face != MISS:
                lit = _in_sun(scene.solids, scene.shadow, view, x, y, z, scene.face_part[face], face)
                key[row, column] = 2 * face + lit
            light = _shade(scene, view, x, y, z, face, 1.0 if lit else 0.0)
            picture[row, column, 0], picture[row, column, 1], picture[row, column, 2] = light


@njit(cache=True, nogil=True)  # without fastmath, which knows no NaN
def trace_depth(scene: SceneArrays, view: Viewpoint, top, bottom, depth, face):
    """Depth (H, W) float32 (NaN: sky) and face (H, W) int32 (−1: sky) at the pixel centres of rows top to bottom."""
    slots = np.empty((bottom - top, view.width), np.int32)
    for row in range(bottom - top):
        for column in range(view.width):
            slots[row, column] = row * view.width + column
    z, f = depth[top:bottom].reshape(-1, 1), face[top:bottom].reshape(-1, 1)
    z[:], f[:] = _FAR, MISS
    _cover(scene, view, top, slots, np.zeros((1, 2)), z, f)
    for i in range(len(z)):
        if f[i, 0] == MISS:
            z[i, 0] = np.nan


@njit(cache=True, nogil=True, fastmath=True)
def smooth_rows(scene: SceneArrays, view: Viewpoint, top, bottom, side, key, picture):
    """Multisample, side x side, the pixels of rows top to bottom whose key differs from a neighbour's."""
    slots = np.empty((bottom - top, view.width), np.int32)
    count = _find_borders(key, top, slots)
    points = side * side
    offsets = np.empty((points, 2))
    for i in range(points):
        offsets[i, 0], offsets[i, 1] = (i % side + 0.5) / side - 0.5, (i // side + 0.5) / side - 0.5
    depth = np.full((count, points), _FAR, np.float32)
    face = np.full((count, points), MISS, np.int32)
    _cover(scene, view, top, slots, offsets, depth, face)
    _blend_rows(scene, view, top, offsets, slots, depth, face, picture)


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _find_borders(key, top, slots):
    """Number the pixels whose key differs from a neighbour's, −1 for the others, in `slots`; returns how many."""
    height, width = key.shape
    count = 0
    for row in range(top, top + len(slots)):
        for column in range(width):
            border = False
            for j in range(max(row - 1, 0), min(row + 2, height)):
                for i in range(max(column - 1, 0), min(column + 2, width)):
                    border |= key[j, i] != key[row, column]
            slots[row - top, column] = count if border else -1
            count += border
    return count


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _blend_rows(scene: SceneArrays, view: Viewpoint, top, offsets, slots, depth, face, picture):
    """Write the pixels that have a slot."""
    for row in range(top, top + len(slots)):
        for column in range(view.width):
            slot = slots[row - top, column]
            if slot >= 0:
                light = _blend(scene, view, row, column, offsets, slot, depth, face)
                picture[row, column, 0], picture[row, column, 1], picture[row, column, 2] = light


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _blend(scene: SceneArrays, view: Viewpoint, row, column, offsets, slot, depth, face):
    """Light of a pixel whose points' depths and faces are in row `slot` of `depth` and `face`."""
    points = len(offsets)
    red = green = blue = 0.0
    for first in range(points):
        shown, seen = face[slot, first], False
        for i in range(first):
            seen |= face[slot, i] == shown
        if seen:
            continue
        # All points that show this face, together.
        count, sunny = 0, 0
        middle_x = middle_y = inverse_depth = 0.0
        for i in range(first, points):
            if face[slot, i] == shown:
                x = (column + offsets[i, 0] - view.cx) / view.fx
                y = (row + offsets[i, 1] - view.cy) / view.fy
                z = np.float64(depth[slot, i])
                count += 1
                middle_x += x
                middle_y += y
                inverse_depth += 1.0 / z
                if shown != MISS:
                    sunny += _in_sun(scene.solids, scene.shadow, view, x, y, z, scene.face_part[shown], shown)
        middle_z = count / inverse_depth  # on a plane, the inverse depth is linear in the image
        light = _shade(scene, view, middle_x / count, middle_y / count, middle_z, shown, sunny / count)
        red += light[0] * count
        green += light[1] * count
        blue += light[2] * count
    return red / points, green / points, blue / points


# --- which surface is seen


@njit(cache=True, nogil=True, fastmath=True)
def _cover(scene: SceneArrays, view: Viewpoint, top, slots, offsets, depth, face):
    """Find the nearest surface at some points of some pixels.

    Args:
        scene: The scene.
        view: The camera.
        top: The image row of slots' first one.
        slots: (rows, W) int32: which row of `depth` and `face` a pixel has; −1: it is not asked for.
        offsets: (S, 2): x and y of each point from the pixel's centre, pixels, within ±0.5; a single one is the centre.
        depth, face: (n, S) float32 and int32; each hit that is nearer than the depth there replaces it.
    """
    solids = scene.solids
    window = np.empty(4, np.int64)
    sides = np.empty((_MAX_SIDES, 4))
    reach = 0.5 if len(offsets) > 1 else 0.0  # of the points from the pixel's centre
    for part in range(len(solids.kind)):
        nearest = _outline(scene.corners, view, part, reach, window)
        left, right = window[0], window[1]
        first_row, last_row = max(window[2], top), min(window[3], top + len(slots))
        if left >= right or first_row >= last_row:
            continue
        o = placed(solids, part, view.origin)
        # The ray of image coordinates (x, y), in the part's frame: o + t (right x + down y + ahead).
        right_axis, down_axis, ahead = (
            turned(solids, part, (view.rotation[0, 0], view.rotation[1, 0], view.rotation[2, 0])),
            turned(solids, part, (view.rotation[0, 1], view.rotation[1, 1], view.rotation[2, 1])),
            turned(solids, part, (view.rotation[0, 2], view.rotation[1, 2], view.rotation[2, 2])),
        )
        kind, first = solids.kind[part], solids.first_face[part]
        count = solids.first_face[part + 1] - first
        if kind == CONVEX:
            for f in range(count):
                n = plane_normal(solids, first + f)
                sides[f, 0], sides[f, 1], sides[f, 2] = dot(n, right_axis), dot(n, down_axis), dot(n, ahead)
                sides[f, 3] = solids.plane[first + f, 3] - dot(n, o)
        for row in range(first_row, last_row):
            for column in range(left, right):
                slot = slots[row - top, column]
                if slot < 0:
                    continue
                for i in range(len(offsets)):
                    limit = depth[slot, i]
                    if nearest >= limit:
                        continue
                    x = (column + offsets[i, 0] - view.cx) / view.fx
                    y = (row + offsets[i, 1] - view.cy) / view.fy
                    if kind == CONVEX:
                        t, hit = _hit_sides(sides, count, x, y, limit)
                    else:
                        d = (
                            right_axis[0] * x + down_axis[0] * y + ahead[0],
                            right_axis[1] * x + down_axis[1] * y + ahead[1],
                            right_axis[2] * x + down_axis[2] * y + ahead[2],
                        )
                        t, hit = hit_round(kind, o, d, np.float64(limit))
                    if hit != MISS:
                        depth[slot, i] = t
                        face[slot, i] = first + hit


@njit(cache=True, nogil=True, fastmath=True, _nrt=False, inline="always")
def _hit_sides(sides, count, x, y, limit):
    """`hit_part` for a convex part: sides (F, 4) hold how fast the ray (x, y) leaves each plane, and its height."""
    enter, hit = 0.0, MISS
    for f in range(count):
        height = sides[f, 3]
        if height < 0.0:  # the camera is outside of this plane
            slope = sides[f, 0] * x + sides[f, 1] * y + sides[f, 2]
            if slope >= 0.0 or height < limit * slope:
                return limit, MISS
            t = height / slope
            if t > enter:
                enter, hit = t, f
    for f in range(count):
        height = sides[f, 3]
        if height >= 0.0 and enter * (sides[f, 0] * x + sides[f, 1] * y + sides[f, 2]) > height:
            return limit, MISS
    return enter, hit


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _outline(corners, view: Viewpoint, part, reach, window):
    """Columns from and to, rows from and to -> `window` of pixels that a part may cover within `reach` pixels of their
    centres; returns the depth before which it does not begin."""
    left = low = nearest = _FAR
    right = high = farthest = -_FAR
    for k in range(8):
        corner = corners[part, k]
        p = (corner[0] - view.origin[0], corner[1] - view.origin[1], corner[2] - view.origin[2])
        z = dot(view.rotation[:, 2], p)
        nearest, farthest = min(nearest, z), max(farthest, z)
        if z > _NEAR:
            u = view.fx * dot(view.rotation[:, 0], p) / z + view.cx
            v = view.fy * dot(view.rotation[:, 1], p) / z + view.cy
            left, right = min(left, u), max(right, u)
            low, high = min(low, v), max(high, v)
    if farthest <= _NEAR:
        window[:] = 0
    elif nearest <= _NEAR:
        window[0], window[1], window[2], window[3] = 0, view.width, 0, view.height
    else:
        reach += 0.01  # for rounding
        window[0] = math.ceil(min(max(left - reach, 0.0), float(view.width)))
        window[1] = math.floor(min(max(right + reach, -1.0), view.width - 1.0)) + 1
        window[2] = math.ceil(min(max(low - reach, 0.0), float(view.height)))
        window[3] = math.floor(min(max(high + reach, -1.0), view.height - 1.0)) + 1
    return max(nearest, 0.0) * (1.0 - 1e-5)


# --- its light


@njit(cache=True, nogil=True, fastmath=True, _nrt=False, inline="always")
def _aim(view: Viewpoint, x, y):
    """World direction of the ray at image coordinates (x, y), with z = 1 in the camera's frame."""
    r = view.rotation
    return (
        r[0, 0] * x + r[0, 1] * y + r[0, 2],
        r[1, 0] * x + r[1, 1] * y + r[1, 2],
        r[2, 0] * x + r[2, 1] * y + r[2, 2],
    )


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _in_sun(solids: Solids, grid: ShadowGrid, view: Viewpoint, x, y, depth, part, face):
    """Whether the sun shines on the face that the ray (x, y) meets at this depth."""
    d, o = _aim(view, x, y), view.origin
    p = (o[0] + depth * d[0], o[1] + depth * d[1], o[2] + depth * d[2])
    n = normal_at(solids, part, face, placed(solids, part, p))
    sun = (grid.axes[2, 0], grid.axes[2, 1], grid.axes[2, 2])
    if dot(n, sun) <= 0.0:
        return False
    p = (p[0] + n[0] * _EPSILON, p[1] + n[1] * _EPSILON, p[2] + n[2] * _EPSILON)
    u, v, height = rotated(grid.axes, p)
    column, row = int((u - grid.low[0]) / CELL), int((v - grid.low[1]) / CELL)
    cell = row * grid.columns + column
    if column < 0 or column >= grid.columns or row < 0 or cell >= len(grid.first) - 1:
        return True
    for k in range(grid.first[cell], grid.first[cell + 1]):
        blocker = int(grid.part[k])
        if grid.high_of[blocker, 2] < height:
            return True  # this one, and all that follow, lie behind
        if u < grid.low_of[blocker, 0] or u > grid.high_of[blocker, 0]:
            continue
        if v < grid.low_of[blocker, 1] or v > grid.high_of[blocker, 1]:
            continue
        _, hit = hit_part(solids, blocker, p, sun, _FAR)
        if hit != MISS:
            return False
    return True


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _shade(scene: SceneArrays, view: Viewpoint, x, y, depth, face, sunny):
    """Light from the point of a face where the ray (x, y) meets it, a share `sunny` of it in the sun."""
    d, o = _aim(view, x, y), view.origin
    if face == MISS:
        return _sky(scene.textures, scene.clouds, d, 1.0 / 1024.0)
    part = scene.face_part[face]
    p = (o[0] + depth * d[0], o[1] + depth * d[1], o[2] + depth * d[2])
    local = placed(scene.solids, part, p)
    normal = normal_at(scene.solids, part, face, local)
    cosine = dot(normal, d)

    # The footprint's sides: the steps to the next pixels, slid along the surface.
    r = view.rotation
    safe = min(cosine, -_GRAZING)
    ux, vx = _slide(
        scene.solids, scene.uv, part, face, local, normal, d, (r[0, 0], r[1, 0], r[2, 0]), safe, depth / view.fx
    )
    uy, vy = _slide(
        scene.solids, scene.uv, part, face, local, normal, d, (r[0, 1], r[1, 1], r[2, 1]), safe, depth / view.fy
    )
    u, v = texture_point(scene.solids, scene.uv, part, face, local)
    albedo = _filtered(scene.textures, scene.texture[face], u, v, ux, vx, uy, vy)

    facing = max(dot(normal, scene.sun), 0.0) * sunny
    # Sky light from the upper half, some bounced up from the ground; darker close to the ground (contact shadow).
    open_sky = 0.5 + 0.5 * normal[2]
    ambient = open_sky + _GROUND_BOUNCE * (1.0 - open_sky)
    if normal[2] < 0.5:
        ambient *= 0.55 + 0.45 * min(max(p[2], 0.0) / 0.5, 1.0)
    length = math.sqrt(dot(d, d))
    mirrored, fresnel = (0.0, 0.0, 0.0), 0.0
    gloss = scene.gloss[face]
    if gloss > 0.0:
        grazing = 1.0 + min(cosine / length, 0.0)
        schlick = _SCHLICK_GLASS + (1.0 - _SCHLICK_GLASS) * grazing**5
        fresnel = min(gloss * (schlick + 0.12), 0.6)
        slide = 2.0 * cosine
        bounced = (d[0] - slide * normal[0], d[1] - slide * normal[1], d[2] - slide * normal[2])
        mirrored = _sky(scene.textures, scene.clouds, bounced, 0.02)
    clear = math.exp(-depth * length * _HAZE)
    air = 0.72 * (1.0 - clear)
    matt, mirror = clear * (1.0 - fresnel), clear * fresnel
    tint, sun, sky = scene.tint, scene.sun_light, scene.sky_light
    return (
        matt * albedo[0] * tint[face, 0] * (sun[0] * facing + sky[0] * ambient) + mirror * mirrored[0] + air,
        matt * albedo[1] * tint[face, 1] * (sun[1] * facing + sky[1] * ambient) + mirror * mirrored[1] + air,
        matt * albedo[2] * tint[face, 2] * (sun[2] * facing + sky[2] * ambient) + mirror * mirrored[2] + air,
    )


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _slide(solids: Solids, uv, part, face, local, normal, d, step, cosine, scale):
    """How the texture coordinates change when the ray d moves by scale · step and stays on the surface."""
    slide = dot(step, normal) / cosine
    shift = (
        (step[0] - d[0] * slide) * scale,
        (step[1] - d[1] * slide) * scale,
        (step[2] - d[2] * slide) * scale,
    )
    move = turned(solids, part, shift)
    v = along(uv, face, 1, move)
    if is_wrapped(solids, part, face):
        turn = uv[face, 0, 0] / (2.0 * math.pi * max(local[0] * local[0] + local[1] * local[1], 1e-3))
        return (local[0] * move[1] - local[1] * move[0]) * turn, v
    return along(uv, face, 0, move), v


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _filtered(textures: Textures, texture, u, v, ux, vx, uy, vy):
    """Texture (red, green, blue) over the footprint with sides (ux, vx) and (uy, vy), in tiles."""
    first, count = textures.layout[texture, 0], textures.layout[texture, 1]
    height, width = textures.levels[first, 1], textures.levels[first, 2]
    x = math.sqrt((ux * width) * (ux * width) + (vx * height) * (vx * height))
    y = math.sqrt((uy * width) * (uy * width) + (vy * height) * (vy * height))
    short, long = min(x, y), max(x, y)
    taps = int(min(max(math.ceil(long / max(short, 1e-6)), 1.0), float(_MAX_TAPS)))
    side = max(long / taps, 1.0)
    lod = min(np.log2(side), count - 1.0)
    level = int(lod)
    blend = lod - level
    along_u, along_v = (ux, vx) if x > y else (uy, vy)
    red = green = blue = 0.0
    for tap in range(taps):
        shift = (tap + 0.5) / taps - 0.5
        s, t = u + shift * along_u, v + shift * along_v
        fine = sample(textures, first + level, s, t)
        coarse = fine if blend == 0.0 else sample(textures, first + level + 1, s, t)
        red += fine[0] + blend * (coarse[0] - fine[0])
        green += fine[1] + blend * (coarse[1] - fine[1])
        blue += fine[2] + blend * (coarse[2] - fine[2])
    scale = 1.0 / (WHITE * taps)
    return red * scale, green * scale, blue * scale


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _sky(textures: Textures, clouds, d, blur):
    """Light from the sky (or, below the horizon, from the ground) in direction d: (red, green, blue)."""
    length = math.sqrt(dot(d, d))
    rise = d[2] / length
    if rise < 0.0:
        return 0.16, 0.155, 0.15
    # A plane of clouds, seen in perspective; the offset keeps them finite at the horizon.
    scale = 0.35 / (rise + 0.12) / length
    cloud = _filtered(textures, clouds, d[0] * scale * 0.25, d[1] * scale, blur, 0.0, 0.0, blur)[0]
    haze = math.exp(-7.0 * rise)
    return (
        (0.30 + 0.36 * haze) * (1.0 - cloud) + 0.86 * cloud,
        (0.46 + 0.26 * haze) * (1.0 - cloud) + 0.87 * cloud,
        (0.80 + 0.04 * haze) * (1.0 - cloud) + 0.88 * cloud,
    )
