"""The compiled ray caster: nearest hits, and the light that comes back along camera rays.

Surfaces are matt (Lambert), lit by the sun with hard shadows and by the sky, with a share of mirrored sky (Schlick's
Fresnel term) on glossy ones. Textures are filtered over the pixel's footprint: mip maps chosen by the footprint's
short side, several taps along its long one (as graphics hardware does, "anisotropic"). Pixels on a border between
faces or shadows are supersampled on top.

No kernel uses numba's own threads, which may not be entered from two Python threads at once; each releases the GIL,
so callers share rows among threads of their own.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np
from numba import njit

from dfd_ros.sim.scene import CONVEX, CYLINDER, SceneArrays

MISS = -1
_EPSILON = 1e-3  # metres: shadow rays start this far off the surface
_MAX_TAPS = 8  # texture samples along the footprint's long side
_GRAZING = 0.02  # smallest |cosine| for which a footprint is computed
_HAZE = 1.0 / 900.0  # 1/m: clear air, visual range some 3 km (Koschmieder)
_GROUND_BOUNCE = 0.35  # light from below relative to the sky's
_SCHLICK_GLASS = 0.04  # reflectance of glass and varnish at normal incidence, times gloss


@njit(cache=True, nogil=True, inline="always")
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True, nogil=True, fastmath=True)
def _hit_part(scene: SceneArrays, part, o, d, limit):
    """Distance in units of d, and the face, where a ray enters a part before `limit`; (limit, MISS) where not."""
    m = scene.local_from_world[part]
    ox = m[0, 0] * o[0] + m[0, 1] * o[1] + m[0, 2] * o[2] + m[0, 3]
    oy = m[1, 0] * o[0] + m[1, 1] * o[1] + m[1, 2] * o[2] + m[1, 3]
    oz = m[2, 0] * o[0] + m[2, 1] * o[1] + m[2, 2] * o[2] + m[2, 3]
    dx = m[0, 0] * d[0] + m[0, 1] * d[1] + m[0, 2] * d[2]
    dy = m[1, 0] * d[0] + m[1, 1] * d[1] + m[1, 2] * d[2]
    dz = m[2, 0] * d[0] + m[2, 1] * d[1] + m[2, 2] * d[2]
    first = scene.first_face[part]
    kind = scene.kind[part]
    if kind == CONVEX:
        enter, leave, face = 0.0, limit, MISS
        for f in range(first, scene.first_face[part + 1]):
            n = scene.plane[f]
            slope = n[0] * dx + n[1] * dy + n[2] * dz
            height = n[3] - (n[0] * ox + n[1] * oy + n[2] * oz)
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
    if kind == CYLINDER:
        a = dx * dx + dy * dy
        b = ox * dx + oy * dy
        c = ox * ox + oy * oy - 1.0
    else:
        a = dx * dx + dy * dy + dz * dz
        b = ox * dx + oy * dy + oz * dz
        c = ox * ox + oy * oy + oz * oz - 1.0
    root = b * b - a * c
    along_axis = kind == CYLINDER and a <= 1e-12 and c < 0.0
    if (root <= 0.0 or a <= 0.0) and not along_axis:
        return limit, MISS
    if a > 1e-12:
        t = (-b - math.sqrt(root)) / a
        if kind != CYLINDER:
            return (t, first) if 0.0 < t < limit else (limit, MISS)
        if 0.0 < t < limit and abs(oz + t * dz) <= 1.0:
            return t, first
    if dz != 0.0:  # the cap that faces the ray
        t = ((-1.0 if dz > 0.0 else 1.0) - oz) / dz
        x, y = ox + t * dx, oy + t * dy
        if 0.0 < t < limit and x * x + y * y <= 1.0:
            return t, first + (2 if dz > 0.0 else 1)
    return limit, MISS


@njit(cache=True, nogil=True, fastmath=True)
def _nearest(scene: SceneArrays, o, d, limit, any_hit):
    """Distance (units of d), part and face of the nearest hit before `limit`, or of any; part MISS where none."""
    best, best_part, best_face = limit, MISS, MISS
    length = _dot(d, d)
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
            cx, cy, cz = ball[0] - o[0], ball[1] - o[1], ball[2] - o[2]
            along = cx * d[0] + cy * d[1] + cz * d[2]
            outside = (cx * cx + cy * cy + cz * cz - ball[3]) * length
            if outside > 0.0 and (along < 0.0 or outside > along * along):
                continue  # the bounding ball lies behind, or the ray passes it
            t, face = _hit_part(scene, part, o, d, best)
            if face != MISS:
                best, best_part, best_face = t, part, face
                if any_hit:
                    return best, best_part, best_face
    return best, best_part, best_face


@njit(cache=True, nogil=True)
def _normal(scene: SceneArrays, part, face, x, y, z, normal):
    """Outward unit normal in the world at local point (x, y, z); -> `normal`."""
    if scene.kind[part] == CONVEX or face > scene.first_face[part]:
        nx, ny, nz = scene.plane[face, 0], scene.plane[face, 1], scene.plane[face, 2]
    elif scene.kind[part] == CYLINDER:
        nx, ny, nz = x, y, z * 0.0
    else:
        nx, ny, nz = x, y, z
    m = scene.local_from_world[part]
    for i in range(3):
        normal[i] = m[0, i] * nx + m[1, i] * ny + m[2, i] * nz
    scale = 1.0 / math.sqrt(_dot(normal, normal))
    for i in range(3):
        normal[i] *= scale


@njit(cache=True, nogil=True, fastmath=True)
def _sample(scene: SceneArrays, texture, u, v, level, rgb, weight):
    """Add `weight` times the bilinear sample of one mip level at (u, v), in tiles, to `rgb`."""
    start, height, width = scene.layout[texture, 0], scene.layout[texture, 1], scene.layout[texture, 2]
    for _ in range(level):
        start += height * width
        height = max(height >> 1, 1)
        width = max(width >> 1, 1)
    x, y = u * width - 0.5, v * height - 0.5
    x0, y0 = math.floor(x), math.floor(y)
    fx, fy = x - x0, y - y0
    xa, ya = int(x0) & (width - 1), int(y0) & (height - 1)
    xb, yb = (xa + 1) & (width - 1), (ya + 1) & (height - 1)
    for c in range(3):
        # texels hold the square root of reflectance
        t00 = np.float32(scene.texels[start + ya * width + xa, c])
        t01 = np.float32(scene.texels[start + ya * width + xb, c])
        t10 = np.float32(scene.texels[start + yb * width + xa, c])
        t11 = np.float32(scene.texels[start + yb * width + xb, c])
        above = t00 * t00 * (1.0 - fx) + t01 * t01 * fx
        below = t10 * t10 * (1.0 - fx) + t11 * t11 * fx
        rgb[c] += weight * (above * (1.0 - fy) + below * fy) * (1.0 / 65025.0)


@njit(cache=True, nogil=True, fastmath=True)
def _filtered(scene: SceneArrays, texture, u, v, ux, vx, uy, vy, rgb):
    """Texture over the footprint with sides (ux, vx) and (uy, vy), in tiles; -> `rgb`."""
    height, width = scene.layout[texture, 1], scene.layout[texture, 2]
    x = math.hypot(ux * width, vx * height)
    y = math.hypot(uy * width, vy * height)
    short, long = min(x, y), max(x, y)
    taps = int(min(max(math.ceil(long / max(short, 1e-6)), 1.0), float(_MAX_TAPS)))
    side = max(long / taps, 1.0)
    top = scene.layout[texture, 3] - 1
    lod = min(math.log2(side), float(top))
    level = int(lod)
    blend = lod - level
    along_u, along_v = (ux, vx) if x > y else (uy, vy)
    rgb[0] = rgb[1] = rgb[2] = 0.0
    for tap in range(taps):
        shift = (tap + 0.5) / taps - 0.5
        s, t = u + shift * along_u, v + shift * along_v
        _sample(scene, texture, s, t, level, rgb, (1.0 - blend) / taps)
        if blend > 0.0:
            _sample(scene, texture, s, t, min(level + 1, top), rgb, blend / taps)


@njit(cache=True, nogil=True)
def _sky(scene: SceneArrays, d, blur, rgb):
    """Light from the sky (or, below the horizon, from the ground) in direction d; -> `rgb`."""
    length = math.sqrt(_dot(d, d))
    rise = d[2] / length
    if rise < 0.0:
        rgb[0], rgb[1], rgb[2] = 0.16, 0.155, 0.15
        return
    # A plane of clouds, seen in perspective; the offset keeps them finite at the horizon.
    scale = 0.35 / (rise + 0.12) / length
    _filtered(scene, scene.clouds, d[0] * scale * 0.25, d[1] * scale, blur, 0.0, 0.0, blur, rgb)
    cloud = rgb[0]
    haze = math.exp(-7.0 * rise)
    rgb[0] = (0.30 + 0.36 * haze) * (1.0 - cloud) + 0.86 * cloud
    rgb[1] = (0.46 + 0.26 * haze) * (1.0 - cloud) + 0.87 * cloud
    rgb[2] = (0.80 + 0.04 * haze) * (1.0 - cloud) + 0.88 * cloud


@njit(cache=True, nogil=True)
def _shade(scene: SceneArrays, o, d, right, down, rgb, work):
    """Light along one ray; -> `rgb`. Returns (distance in units of d, face, in sunlight).

    `right` and `down` are the steps of d to the next pixel. `work` (5, 3) is scratch.
    """
    t, part, face = _nearest(scene, o, d, np.float32(1e6), False)
    point, normal, mirror, other, albedo = work[0], work[1], work[2], work[3], work[4]
    if part == MISS:
        _sky(scene, d, 1.0 / 1024.0, rgb)
        return t, MISS, True
    for i in range(3):
        point[i] = o[i] + t * d[i]
    m = scene.local_from_world[part]
    x = m[0, 0] * point[0] + m[0, 1] * point[1] + m[0, 2] * point[2] + m[0, 3]
    y = m[1, 0] * point[0] + m[1, 1] * point[1] + m[1, 2] * point[2] + m[1, 3]
    z = m[2, 0] * point[0] + m[2, 1] * point[1] + m[2, 2] * point[2] + m[2, 3]
    _normal(scene, part, face, x, y, z, normal)

    # Texture coordinates, their gradients (local, then along the footprint's sides).
    uv = scene.uv[face]
    wrapped = scene.kind[part] != CONVEX and face == scene.first_face[part]
    v = uv[1, 0] * x + uv[1, 1] * y + uv[1, 2] * z + uv[1, 3]
    if wrapped:
        u = uv[0, 0] * (math.atan2(y, x) / (2.0 * math.pi)) + uv[0, 3]
        turn = uv[0, 0] / (2.0 * math.pi * max(x * x + y * y, 1e-3))
        gx, gy, gz = -y * turn, x * turn, 0.0
    else:
        u = uv[0, 0] * x + uv[0, 1] * y + uv[0, 2] * z + uv[0, 3]
        gx, gy, gz = uv[0, 0], uv[0, 1], uv[0, 2]
    cosine = _dot(normal, d)
    safe = min(cosine, -_GRAZING)
    ux = uy = vx = vy = 0.0
    for side in range(2):
        step = right if side == 0 else down
        slide = _dot(step, normal) / safe
        for i in range(3):
            other[i] = (step[i] - d[i] * slide) * t
        lx = m[0, 0] * other[0] + m[0, 1] * other[1] + m[0, 2] * other[2]
        ly = m[1, 0] * other[0] + m[1, 1] * other[1] + m[1, 2] * other[2]
        lz = m[2, 0] * other[0] + m[2, 1] * other[1] + m[2, 2] * other[2]
        du = gx * lx + gy * ly + gz * lz
        dv = uv[1, 0] * lx + uv[1, 1] * ly + uv[1, 2] * lz
        if side == 0:
            ux, vx = du, dv
        else:
            uy, vy = du, dv
    _filtered(scene, scene.texture[face], u, v, ux, vx, uy, vy, albedo)

    facing = _dot(normal, scene.sun)
    lit = False
    if facing > 0.0:
        for i in range(3):
            point[i] += normal[i] * _EPSILON
        _, blocker, _ = _nearest(scene, point, scene.sun, np.float32(1e6), True)
        lit = blocker == MISS
    sunny = facing if lit else 0.0
    # Sky light from the upper half, some bounced up from the ground; darker close to the ground (contact shadow).
    open_sky = 0.5 + 0.5 * normal[2]
    ambient = open_sky + _GROUND_BOUNCE * (1.0 - open_sky)
    ambient *= 0.55 + 0.45 * min(max(point[2], 0.0) / 0.5, 1.0) if normal[2] < 0.5 else 1.0
    for c in range(3):
        rgb[c] = albedo[c] * scene.tint[face, c] * (scene.sun_light[c] * sunny + scene.sky_light[c] * ambient)

    length = math.sqrt(_dot(d, d))
    gloss = scene.gloss[face]
    if gloss > 0.0:
        for i in range(3):
            mirror[i] = (d[i] - 2.0 * cosine * normal[i]) / length
        fresnel = gloss * (_SCHLICK_GLASS + (1.0 - _SCHLICK_GLASS) * (1.0 + min(cosine / length, 0.0)) ** 5)
        fresnel = min(fresnel + 0.12 * gloss, 0.6)
        _sky(scene, mirror, 0.02, other)
        for c in range(3):
            rgb[c] = (1.0 - fresnel) * rgb[c] + fresnel * other[c]
    clear = math.exp(-t * length * _HAZE)
    for c in range(3):
        rgb[c] = clear * rgb[c] + (1.0 - clear) * 0.72
    return t, face, lit


@njit(cache=True, nogil=True)
def _aim(rays, rotation, row, column, dx, dy, step_x, step_y, d):
    """World direction of a camera ray moved by (dx, dy) pixels; -> `d`."""
    x = rays[row, column, 0] + dx * step_x
    y = rays[row, column, 1] + dy * step_y
    for i in range(3):
        d[i] = rotation[i, 0] * x + rotation[i, 1] * y + rotation[i, 2]


@njit(cache=True, nogil=True)
def trace_rows(scene: SceneArrays, origin, rotation, rays, top, bottom, picture, depth, key):
    """Trace the pixel centres of rows top to bottom.

    Args:
        scene: The scene.
        origin, rotation: (3,) and (3, 3) float32, world from camera.
        rays: (H, W, 3) float32, camera rays with z = 1: the distance along them is the depth.
        top, bottom: Rows to do.
        picture: (H, W, 3) float32; gets linear light.
        depth: (H, W) float32; gets z in metres, NaN for the sky.
        key: (H, W) int32; gets 2 · face + in sunlight, −1 for the sky.
    """
    step_x = rays[0, 1, 0] - rays[0, 0, 0]
    step_y = rays[1, 0, 1] - rays[0, 0, 1]
    right, down = rotation[:, 0] * step_x, rotation[:, 1] * step_y
    d, work = np.empty(3, np.float32), np.empty((5, 3), np.float32)
    for row in range(top, bottom):
        for column in range(rays.shape[1]):
            _aim(rays, rotation, row, column, 0.0, 0.0, step_x, step_y, d)
            t, face, lit = _shade(scene, origin, d, right, down, picture[row, column], work)
            depth[row, column] = np.float32(np.nan) if face == MISS else t
            key[row, column] = MISS if face == MISS else 2 * face + lit


@njit(cache=True, nogil=True)
def smooth_rows(scene: SceneArrays, origin, rotation, rays, top, bottom, side, key, picture):
    """Supersample, side x side, the pixels of rows top to bottom whose key differs from a neighbour's."""
    height, width = key.shape
    step_x = rays[0, 1, 0] - rays[0, 0, 0]
    step_y = rays[1, 0, 1] - rays[0, 0, 1]
    right, down = rotation[:, 0] * step_x, rotation[:, 1] * step_y
    d, rgb, work = np.empty(3, np.float32), np.empty(3, np.float32), np.empty((5, 3), np.float32)
    for row in range(top, bottom):
        for column in range(width):
            here = key[row, column]
            border = False
            for j in range(max(row - 1, 0), min(row + 2, height)):
                for i in range(max(column - 1, 0), min(column + 2, width)):
                    border |= key[j, i] != here
            if not border:
                continue
            total = picture[row, column]
            total[:] = 0.0
            for j in range(side):
                for i in range(side):
                    dx, dy = (i + 0.5) / side - 0.5, (j + 0.5) / side - 0.5
                    _aim(rays, rotation, row, column, dx, dy, step_x, step_y, d)
                    _shade(scene, origin, d, right, down, rgb, work)
                    for c in range(3):
                        total[c] += rgb[c] / (side * side)


@njit(cache=True, nogil=True)
def trace_depth(scene: SceneArrays, origin, rotation, rays, depth, thing):
    """Depth (H, W) float32 (NaN: sky) and object number (H, W) int32 (−1: sky) at the pixel centres."""
    d = np.empty(3, np.float32)
    for row in range(rays.shape[0]):
        for column in range(rays.shape[1]):
            _aim(rays, rotation, row, column, 0.0, 0.0, 0.0, 0.0, d)
            t, part, _ = _nearest(scene, origin, d, np.float32(1e6), False)
            depth[row, column] = np.float32(np.nan) if part == MISS else t
            thing[row, column] = MISS if part == MISS else scene.part_object[part]


@njit(cache=True, nogil=True)
def trace_beams(scene: SceneArrays, origins, directions, limit, distance, albedo, cosine, gloss):
    """What laser beams hit. origins, directions (N, 3) float32, world, unit. Each out (N,) float32.

    distance: metres, inf for no hit before `limit`; albedo: grey reflectance there; cosine: of incidence; gloss.
    """
    work, rgb = np.empty((1, 3), np.float32), np.empty(3, np.float32)
    for n in range(len(origins)):
        o, d = origins[n], directions[n]
        t, part, face = _nearest(scene, o, d, np.float32(limit), False)
        if part == MISS:
            distance[n] = np.float32(np.inf)
            continue
        m = scene.local_from_world[part]
        px, py, pz = o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]
        x = m[0, 0] * px + m[0, 1] * py + m[0, 2] * pz + m[0, 3]
        y = m[1, 0] * px + m[1, 1] * py + m[1, 2] * pz + m[1, 3]
        z = m[2, 0] * px + m[2, 1] * py + m[2, 2] * pz + m[2, 3]
        normal = work[0]
        _normal(scene, part, face, x, y, z, normal)
        uv = scene.uv[face]
        v = uv[1, 0] * x + uv[1, 1] * y + uv[1, 2] * z + uv[1, 3]
        if scene.kind[part] != CONVEX and face == scene.first_face[part]:
            u = uv[0, 0] * (math.atan2(y, x) / (2.0 * math.pi)) + uv[0, 3]
        else:
            u = uv[0, 0] * x + uv[0, 1] * y + uv[0, 2] * z + uv[0, 3]
        rgb[0] = rgb[1] = rgb[2] = 0.0
        texture = scene.texture[face]
        _sample(scene, texture, u, v, min(3, scene.layout[texture, 3] - 1), rgb, np.float32(1.0))
        distance[n] = t
        albedo[n] = _dot(rgb, scene.tint[face]) / 3.0
        cosine[n] = -_dot(normal, d)
        gloss[n] = scene.gloss[face]
