"""The compiled ray caster: where a ray meets the scene's solids, and what a laser beam finds there.

Points and directions are tuples of three floats. No kernel uses numba's own threads, which may not be entered from two
Python threads at once; each releases the GIL, so callers share the work among threads of their own. All are compiled
with `fastmath` (a function that is cannot be inlined into one that is not) and without numba's reference counting
(`_nrt=False`; nothing is allocated here): counting the users of each array, call by call, took most of the time.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np
from numba import njit

from dfd_ros.sim.scene import CONVEX, CYLINDER, SceneArrays, Solids, Textures

MISS = -1
WHITE = 255.0 * 255.0
"""What `sample` returns for a reflectance of 1."""
_LIDAR_LEVEL = 3  # mip level that a beam, some centimetres wide, averages over


@njit(cache=True, nogil=True, fastmath=True, _nrt=False, inline="always")
def dot(a, b):
    """a · b."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True, nogil=True, fastmath=True, _nrt=False, inline="always")
def rotated(m, v):
    """The (3, 3) matrix m times v."""
    return (
        m[0, 0] * v[0] + m[0, 1] * v[1] + m[0, 2] * v[2],
        m[1, 0] * v[0] + m[1, 1] * v[1] + m[1, 2] * v[2],
        m[2, 0] * v[0] + m[2, 1] * v[1] + m[2, 2] * v[2],
    )


@njit(cache=True, nogil=True, fastmath=True, _nrt=False, inline="always")
def turned(solids: Solids, part, v):
    """A world direction in the part's frame."""
    m = solids.local_from_world
    return (
        m[part, 0, 0] * v[0] + m[part, 0, 1] * v[1] + m[part, 0, 2] * v[2],
        m[part, 1, 0] * v[0] + m[part, 1, 1] * v[1] + m[part, 1, 2] * v[2],
        m[part, 2, 0] * v[0] + m[part, 2, 1] * v[1] + m[part, 2, 2] * v[2],
    )


@njit(cache=True, nogil=True, fastmath=True, _nrt=False, inline="always")
def placed(solids: Solids, part, p):
    """A world point in the part's frame."""
    m = solids.local_from_world
    return (
        m[part, 0, 0] * p[0] + m[part, 0, 1] * p[1] + m[part, 0, 2] * p[2] + m[part, 0, 3],
        m[part, 1, 0] * p[0] + m[part, 1, 1] * p[1] + m[part, 1, 2] * p[2] + m[part, 1, 3],
        m[part, 2, 0] * p[0] + m[part, 2, 1] * p[1] + m[part, 2, 2] * p[2] + m[part, 2, 3],
    )


@njit(cache=True, nogil=True, fastmath=True, _nrt=False, inline="always")
def plane_normal(solids: Solids, face):
    """Normal of a face's plane, in the part's frame."""
    return np.float64(solids.plane[face, 0]), np.float64(solids.plane[face, 1]), np.float64(solids.plane[face, 2])


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def hit_round(kind, o, d, limit):
    """Where a ray enters the unit cylinder or sphere before `limit`: (distance in units of d, 0 the side, 1 the top
    or 2 the bottom); (limit, MISS) where not."""
    a = d[0] * d[0] + d[1] * d[1]
    b = o[0] * d[0] + o[1] * d[1]
    c = o[0] * o[0] + o[1] * o[1] - 1.0
    if kind != CYLINDER:
        a += d[2] * d[2]
        b += o[2] * d[2]
        c += o[2] * o[2]
    root = b * b - a * c
    along_axis = kind == CYLINDER and a <= 1e-12 and c < 0.0
    if (root <= 0.0 or a <= 0.0) and not along_axis:
        return limit, MISS
    if a > 1e-12:
        t = (-b - math.sqrt(root)) / a
        if kind != CYLINDER:
            return (t, 0) if 0.0 < t < limit else (limit, MISS)
        if 0.0 < t < limit and abs(o[2] + t * d[2]) <= 1.0:
            return t, 0
    if d[2] != 0.0:  # the cap that faces the ray
        t = ((-1.0 if d[2] > 0.0 else 1.0) - o[2]) / d[2]
        x, y = o[0] + t * d[0], o[1] + t * d[1]
        if 0.0 < t < limit and x * x + y * y <= 1.0:
            return t, 2 if d[2] > 0.0 else 1
    return limit, MISS


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def hit_part(solids: Solids, part, origin, direction, limit):
    """Distance in units of the direction, and the face, where a ray enters a part before `limit`, or (limit, MISS)."""
    o, d = placed(solids, part, origin), turned(solids, part, direction)
    first = solids.first_face[part]
    if solids.kind[part] != CONVEX:
        t, face = hit_round(solids.kind[part], o, d, limit)
        return t, face if face == MISS else first + face
    enter, leave, face = 0.0, limit, MISS
    for f in range(first, solids.first_face[part + 1]):
        n = plane_normal(solids, f)
        slope = dot(n, d)
        height = solids.plane[f, 3] - dot(n, o)
        if slope < 0.0:
            t = height / slope
            if t > enter:
                enter, face = t, f
        elif slope > 0.0:
            leave = min(leave, height / slope)
        elif height < 0.0:
            return limit, MISS
        if enter > leave:
            return limit, MISS
    if face == MISS or enter >= limit:
        return limit, MISS
    return enter, face


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _nearest(scene: SceneArrays, o, d, limit):
    """Distance (units of d), part and face of the nearest hit before `limit`; part MISS where none."""
    best, best_part, best_face = limit, MISS, MISS
    length = dot(d, d)
    ix = 1.0 / d[0] if abs(d[0]) > 1e-9 else 1e9
    iy = 1.0 / d[1] if abs(d[1]) > 1e-9 else 1e9
    iz = 1.0 / d[2] if abs(d[2]) > 1e-9 else 1e9
    for thing in range(len(scene.bounds)):
        box = scene.bounds[thing]
        x0, x1 = (box[0] - o[0]) * ix, (box[3] - o[0]) * ix
        y0, y1 = (box[1] - o[1]) * iy, (box[4] - o[1]) * iy
        z0, z1 = (box[2] - o[2]) * iz, (box[5] - o[2]) * iz
        enter = max(min(x0, x1), min(y0, y1), min(z0, z1), 0.0)
        leave = min(max(x0, x1), max(y0, y1), max(z0, z1))
        if enter > leave or enter >= best:
            continue
        for part in range(scene.first_part[thing], scene.first_part[thing + 1]):
            ball = scene.ball[part]
            centre = (ball[0] - o[0], ball[1] - o[1], ball[2] - o[2])
            along = dot(centre, d)
            outside = (dot(centre, centre) - ball[3]) * length
            if outside > 0.0 and (along < 0.0 or outside > along * along):
                continue  # the bounding ball lies behind, or the ray passes it
            t, face = hit_part(scene.solids, part, o, d, best)
            if face != MISS:
                best, best_part, best_face = t, part, face
    return best, best_part, best_face


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def normal_at(solids: Solids, part, face, p):
    """Outward unit normal in the world at the point p of the part's frame."""
    x, y, z = plane_normal(solids, face)
    if is_wrapped(solids, part, face):
        x, y, z = p[0], p[1], 0.0 if solids.kind[part] == CYLINDER else p[2]
    m = solids.local_from_world
    nx = m[part, 0, 0] * x + m[part, 1, 0] * y + m[part, 2, 0] * z
    ny = m[part, 0, 1] * x + m[part, 1, 1] * y + m[part, 2, 1] * z
    nz = m[part, 0, 2] * x + m[part, 1, 2] * y + m[part, 2, 2] * z
    scale = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz)
    return nx * scale, ny * scale, nz * scale


@njit(cache=True, nogil=True, fastmath=True, _nrt=False, inline="always")
def is_wrapped(solids: Solids, part, face):
    """Whether a face is the round side of a cylinder or an ellipsoid, its texture wrapped around the z axis."""
    return solids.kind[part] != CONVEX and face == solids.first_face[part]


@njit(cache=True, nogil=True, fastmath=True, _nrt=False, inline="always")
def along(uv, face, axis, v):
    """Change of a texture coordinate (0: u, 1: v), in tiles, along the vector v of the part's frame."""
    return uv[face, axis, 0] * v[0] + uv[face, axis, 1] * v[1] + uv[face, axis, 2] * v[2]


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def texture_point(solids: Solids, uv, part, face, p):
    """Texture coordinates, in tiles, of the point p of the part's frame; `uv` is the scene's."""
    v = along(uv, face, 1, p) + uv[face, 1, 3]
    if is_wrapped(solids, part, face):
        return uv[face, 0, 0] * (math.atan2(p[1], p[0]) / (2.0 * math.pi)) + uv[face, 0, 3], v
    return along(uv, face, 0, p) + uv[face, 0, 3], v


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def sample(textures: Textures, level, u, v):
    """Bilinear sample of one mip level at (u, v), in tiles: reflectance (red, green, blue), times 255²."""
    start, height, width = textures.levels[level, 0], textures.levels[level, 1], textures.levels[level, 2]
    x, y = u * width - 0.5, v * height - 0.5
    x0, y0 = math.floor(x), math.floor(y)
    fx, fy = x - x0, y - y0
    xa, ya = int(x0) & (width - 1), int(y0) & (height - 1)
    xb, yb = (xa + 1) & (width - 1), (ya + 1) & (height - 1)
    w00, w01, w10, w11 = (1.0 - fy) * (1.0 - fx), (1.0 - fy) * fx, fy * (1.0 - fx), fy * fx
    above, below = start + ya * width, start + yb * width
    t00, t01 = np.int64(textures.texels[above + xa]), np.int64(textures.texels[above + xb])
    t10, t11 = np.int64(textures.texels[below + xa]), np.int64(textures.texels[below + xb])
    return (
        w00 * _squared(t00, 0) + w01 * _squared(t01, 0) + w10 * _squared(t10, 0) + w11 * _squared(t11, 0),
        w00 * _squared(t00, 8) + w01 * _squared(t01, 8) + w10 * _squared(t10, 8) + w11 * _squared(t11, 8),
        w00 * _squared(t00, 16) + w01 * _squared(t01, 16) + w10 * _squared(t10, 16) + w11 * _squared(t11, 16),
    )


@njit(cache=True, nogil=True, fastmath=True, _nrt=False, inline="always")
def _squared(texel, shift):
    """One channel of a texel, squared: texels hold the square root of reflectance."""
    return ((texel >> shift) & 255) * ((texel >> shift) & 255)


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def trace_beams(scene: SceneArrays, origins, directions, limit, distance, albedo, cosine, gloss):
    """What laser beams hit. origins, directions (N, 3) float32, world, unit. Each out (N,) float32.

    distance: metres, inf for no hit before `limit`; albedo: grey reflectance there; cosine: of incidence; gloss.
    """
    for n in range(len(origins)):
        o = (np.float64(origins[n, 0]), np.float64(origins[n, 1]), np.float64(origins[n, 2]))
        d = (np.float64(directions[n, 0]), np.float64(directions[n, 1]), np.float64(directions[n, 2]))
        t, part, face = _nearest(scene, o, d, np.float64(limit))
        if part == MISS:
            distance[n] = np.float32(np.inf)
            continue
        point = (o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
        local = placed(scene.solids, part, point)
        u, v = texture_point(scene.solids, scene.uv, part, face, local)
        texture = scene.textures.layout[scene.texture[face]]
        rgb = sample(scene.textures, texture[0] + min(_LIDAR_LEVEL, texture[1] - 1), u, v)
        distance[n] = t
        albedo[n] = dot(rgb, scene.tint[face]) / (3.0 * WHITE)
        cosine[n] = -dot(normal_at(scene.solids, part, face, local), d)
        gloss[n] = scene.gloss[face]
