"""Pictures of made-up scenes through a pinhole: boxes, ellipsoids and cylinders with textures, lamps and shadows.

Every body is the image of a unit box, sphere or cylinder under a linear map, so a ray meets it between two numbers found
in its own frame (Kay & Kajiya, SIGGRAPH 1986, for the box), and since a ray is t · (x, y, 1), t is its depth. Bodies are
drawn one after another into their part of a depth buffer; what is seen is shaded afterwards. Compiled.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.data.scene_textures import LEVELS, SIDE, TextureBank

BOX, BALL, POLE = 0, 1, 2
"""Kinds of bodies: all within [-1, 1]³; the pole is a cylinder along the third axis."""
SUPERSAMPLING = 2
"""Colour is the mean of so many by so many rays a pixel; depth is that at the pixel's centre."""
_NEAREST = np.float32(1e-3)  # metres: nothing nearer is drawn
_NOTHING = np.float32(1e9)  # the depth where no body is
_LEAST_COSINE = np.float32(0.05)  # of the angle of view, for the texture's mip level
_SHADOW_STEP = np.float32(1e-3)  # of the way to the lamp: a surface does not shade itself


class Bodies(NamedTuple):
    """What stands in a scene, in the camera's optical frame, metres.

    Attributes:
        kind: (n,) int32.
        centre: (n, 3) float32.
        axes: (n, 3, 3) float32: rows are the body's axes, orthogonal, as long as its half sizes.
        surface: (n,) int32, the first of its surfaces: a box has six (two for each axis), a ball one, a pole two (its
            side and its ends).
        hollow: (n,) bool, seen from within.
        shades: (m,) int32, which bodies cast shadows.
    """

    kind: NDArray[np.int32]
    centre: NDArray[np.float32]
    axes: NDArray[np.float32]
    surface: NDArray[np.int32]
    hollow: NDArray[np.bool_]
    shades: NDArray[np.int32]


class Surfaces(NamedTuple):
    """How surfaces look: reflectance = base + gain · texture, times 1 + grain · (noise − 1/2), in linear light.

    Attributes:
        texture: (s, 2) int32, the texture (-1 for none) and the noise.
        place: (s, 2, 3) float32, texels = place · (u, v, 1) with u and v in metres on the surface.
        base, gain: (s, 3) float32.
        grain: (s, 2) float32, its amplitude and texels per metre.
        glow: (s,) float32, light given off, times the reflectance.
        gloss: (s,) float32, mirrored share of the lamp's light.
    """

    texture: NDArray[np.int32]
    place: NDArray[np.float32]
    base: NDArray[np.float32]
    gain: NDArray[np.float32]
    grain: NDArray[np.float32]
    glow: NDArray[np.float32]
    gloss: NDArray[np.float32]


class Light(NamedTuple):
    """Lamp at `position` (camera's frame, metres; `size` is its radius), and light from everywhere and from the camera.

    A lamp of strength 1 lights a surface that faces it at `reach` metres to its full reflectance; with a `reach` of 0
    distance does not matter. The sky is a mix of `zenith` and `horizon`.
    """

    position: NDArray[np.float32]
    colour: NDArray[np.float32]
    size: np.float32
    reach: np.float32
    ambient: NDArray[np.float32]
    frontal: np.float32
    horizon: NDArray[np.float32]
    zenith: NDArray[np.float32]


class Pinhole(NamedTuple):
    """The camera: focal length and principal point, pixels."""

    focal: np.float32
    cx: np.float32
    cy: np.float32


class _Frames(NamedTuple):
    """The bodies' own frames: unit body = `local` · (point − centre), `half` sizes, squared radius of a ball around."""

    local: NDArray[np.float32]
    half: NDArray[np.float32]
    reach: NDArray[np.float32]


def photograph(
    bodies: Bodies, surfaces: Surfaces, light: Light, camera: Pinhole, shape: tuple[int, int], bank: TextureBank
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All-in-focus picture, (H, W, 3) float32 linear light, and depth at the pixel centres, (H, W) metres, inf for sky."""
    squares = np.sum(bodies.axes**2, axis=2)
    frames = _Frames(bodies.axes / squares[..., None], np.sqrt(squares), squares.sum(axis=1))
    depth, owner = _buffers(shape)
    _draw(bodies, frames, camera, 1, depth, owner)
    fine_depth, fine_owner = _buffers((SUPERSAMPLING * shape[0], SUPERSAMPLING * shape[1]))
    _draw(bodies, frames, camera, SUPERSAMPLING, fine_depth, fine_owner)
    picture = np.zeros((*shape, 3), np.float32)
    # The lamp has a size: each ray of a pixel sees another point of it, so that shadows have soft edges.
    turns = 2.4 * np.arange(SUPERSAMPLING**2)
    spots = (light.size * np.stack([np.cos(turns), np.sin(turns)], axis=1)).astype(np.float32)
    _shade(
        bodies,
        frames,
        surfaces,
        light,
        spots,
        camera,
        fine_depth,
        fine_owner,
        bank.texels.view(np.uint32).reshape(-1),
        bank.first,
        picture,
    )
    depth[owner < 0] = np.inf
    return picture, depth


def _buffers(shape: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    return np.full(shape, _NOTHING), np.full(shape, -1, np.int32)


@njit(cache=True, nogil=True, fastmath=True)
def _meet(kind, ox, oy, oz, dx, dy, dz):  # type: ignore[no-untyped-def]
    """Where the ray o + t d enters and leaves a unit body; it misses where it would leave before it enters."""
    tiny = np.float32(1e-12)
    dx = dx if abs(dx) > tiny else tiny
    dy = dy if abs(dy) > tiny else tiny
    dz = dz if abs(dz) > tiny else tiny
    one = np.float32(1.0)
    if kind == BALL:
        a = dx * dx + dy * dy + dz * dz
        b = ox * dx + oy * dy + oz * dz
        c = ox * ox + oy * oy + oz * oz - one
        root = b * b - a * c
        if root < 0.0:
            return one, -one
        root = math.sqrt(root)
        return (-b - root) / a, (-b + root) / a
    first, last = (-one - oz) / dz, (one - oz) / dz
    enter, leave = min(first, last), max(first, last)
    if kind == BOX:
        first, last = (-one - ox) / dx, (one - ox) / dx
        enter, leave = max(enter, min(first, last)), min(leave, max(first, last))
        first, last = (-one - oy) / dy, (one - oy) / dy
        return max(enter, min(first, last)), min(leave, max(first, last))
    a = dx * dx + dy * dy
    b = ox * dx + oy * dy
    c = ox * ox + oy * oy - one
    root = b * b - a * c
    if root < 0.0:
        return one, -one
    root = math.sqrt(root)
    return max(enter, (-b - root) / a), min(leave, (-b + root) / a)


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _draw(bodies, frames, camera, samples, depth, owner):  # type: ignore[no-untyped-def]
    """Draw all bodies into a buffer with `samples` by `samples` rays a pixel."""
    height, width = depth.shape
    fine = np.float32(samples)
    step = np.float32(1.0) / (fine * camera.focal)
    # Ray of column j, row i: (left + j step, top + i step, 1).
    left = (np.float32(0.5) / fine - np.float32(0.5) - camera.cx) / camera.focal
    top = (np.float32(0.5) / fine - np.float32(0.5) - camera.cy) / camera.focal
    axes, local = bodies.axes, frames.local
    for n in range(len(bodies.kind)):
        kind, hollow = bodies.kind[n], bodies.hollow[n]
        cx, cy, cz = bodies.centre[n, 0], bodies.centre[n, 1], bodies.centre[n, 2]
        low_x, high_x, low_y, high_y = _NOTHING, -_NOTHING, _NOTHING, -_NOTHING
        before = 0
        for corner in range(8):
            x, y, z = cx, cy, cz
            for k in range(3):
                sign = np.float32(1.0 if corner >> k & 1 else -1.0)
                x, y, z = x + sign * axes[n, k, 0], y + sign * axes[n, k, 1], z + sign * axes[n, k, 2]
            if z > _NEAREST:
                before += 1
                low_x, high_x = min(low_x, x / z), max(high_x, x / z)
                low_y, high_y = min(low_y, y / z), max(high_y, y / z)
        if before == 0:
            continue
        from_column, to_column, from_row, to_row = 0, width, 0, height
        if before == 8:
            from_column = max(from_column, math.floor((low_x - left) / step))
            to_column = min(to_column, math.ceil((high_x - left) / step) + 1)
            from_row = max(from_row, math.floor((low_y - top) / step))
            to_row = min(to_row, math.ceil((high_y - top) / step) + 1)
        m00, m01, m02 = local[n, 0, 0], local[n, 0, 1], local[n, 0, 2]
        m10, m11, m12 = local[n, 1, 0], local[n, 1, 1], local[n, 1, 2]
        m20, m21, m22 = local[n, 2, 0], local[n, 2, 1], local[n, 2, 2]
        o0 = -(m00 * cx + m01 * cy + m02 * cz)
        o1 = -(m10 * cx + m11 * cy + m12 * cz)
        o2 = -(m20 * cx + m21 * cy + m22 * cz)
        for i in range(from_row, to_row):
            y = top + np.float32(i) * step
            d0, d1, d2 = m01 * y + m02, m11 * y + m12, m21 * y + m22
            for j in range(from_column, to_column):
                x = left + np.float32(j) * step
                enter, leave = _meet(kind, o0, o1, o2, d0 + m00 * x, d1 + m10 * x, d2 + m20 * x)
                if enter < leave:
                    t = leave if hollow else enter
                    if _NEAREST < t < depth[i, j]:
                        depth[i, j] = t
                        owner[i, j] = n


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _lit(bodies, frames, n, x, y, z, lx, ly, lz):  # type: ignore[no-untyped-def]
    """Whether nothing stands between a point on body n and the lamp, (lx, ly, lz) away."""
    scale = np.float32(1.0) / (lx * lx + ly * ly + lz * lz)
    local = frames.local
    for m in bodies.shades:
        if m == n:
            continue
        # First whether the way passes the ball around the body at all.
        cx, cy, cz = bodies.centre[m, 0] - x, bodies.centre[m, 1] - y, bodies.centre[m, 2] - z
        along = min(max((cx * lx + cy * ly + cz * lz) * scale, np.float32(0.0)), np.float32(1.0))
        dx, dy, dz = cx - along * lx, cy - along * ly, cz - along * lz
        if dx * dx + dy * dy + dz * dz > frames.reach[m]:
            continue
        m00, m01, m02 = local[m, 0, 0], local[m, 0, 1], local[m, 0, 2]
        m10, m11, m12 = local[m, 1, 0], local[m, 1, 1], local[m, 1, 2]
        m20, m21, m22 = local[m, 2, 0], local[m, 2, 1], local[m, 2, 2]
        enter, leave = _meet(
            bodies.kind[m],
            -(m00 * cx + m01 * cy + m02 * cz),
            -(m10 * cx + m11 * cy + m12 * cz),
            -(m20 * cx + m21 * cy + m22 * cz),
            m00 * lx + m01 * ly + m02 * lz,
            m10 * lx + m11 * ly + m12 * lz,
            m20 * lx + m21 * ly + m22 * lz,
        )
        if enter < leave and leave > _SHADOW_STEP and enter < np.float32(1.0):
            return False
    return True


@njit(cache=True, nogil=True, fastmath=True)
def _mirror(texel, side):  # type: ignore[no-untyped-def]
    """A texel's place in a texture that repeats by reflection; `side` is a power of two."""
    place = texel & (2 * side - 1)
    return place if place < side else 2 * side - 1 - place


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _look_up(texels, first, texture, u, v, level):  # type: ignore[no-untyped-def]
    """Bilinear sample of one mip level, linear reflectance; u and v in texels of the finest."""
    level = min(max(level, 0), LEVELS - 1)
    side = SIDE >> level
    scale = np.float32(side) / np.float32(SIDE)
    u, v = u * scale - np.float32(0.5), v * scale - np.float32(0.5)
    column, row = math.floor(u), math.floor(v)
    across, down = u - np.float32(column), v - np.float32(row)
    left, right = _mirror(column, side), _mirror(column + 1, side)
    start = first[texture, level]
    above, below = start + _mirror(row, side) * side, start + _mirror(row + 1, side) * side
    one, norm = np.float32(1.0), np.float32(1.0 / 255.0**2)
    red, green, blue = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for place, weight in (
        (above + left, (one - across) * (one - down)),
        (above + right, across * (one - down)),
        (below + left, (one - across) * down),
        (below + right, across * down),
    ):
        texel = texels[np.uintp(place)]  # unsigned: no check for indices that count from the end
        weight *= norm
        red += weight * np.float32(texel & 255) ** 2
        green += weight * np.float32(texel >> 8 & 255) ** 2
        blue += weight * np.float32(texel >> 16 & 255) ** 2
    return red, green, blue


@njit(cache=True, nogil=True, fastmath=True)
def _level(texels_per_pixel):  # type: ignore[no-untyped-def]
    """The mip level whose texels are nearest to a pixel's size."""
    return math.floor(math.log2(max(texels_per_pixel, np.float32(1.0))) + np.float32(0.5))


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _shade(bodies, frames, surfaces, light, spots, camera, depth, owner, texels, first, picture):  # type: ignore[no-untyped-def]
    """Add up the light of the rays of each pixel."""
    samples = depth.shape[0] // picture.shape[0]
    share = np.float32(1.0 / samples**2)
    fine = np.float32(samples)
    step = np.float32(1.0) / (fine * camera.focal)
    left = (np.float32(0.5) / fine - np.float32(0.5) - camera.cx) / camera.focal
    top = (np.float32(0.5) / fine - np.float32(0.5) - camera.cy) / camera.focal
    one, zero = np.float32(1.0), np.float32(0.0)
    local = frames.local
    for i in range(depth.shape[0]):
        ray_y = top + np.float32(i) * step
        for j in range(depth.shape[1]):
            row, column, spot = i // samples, j // samples, i % samples * samples + j % samples
            ray_x = left + np.float32(j) * step
            n = owner[i, j]
            if n < 0:
                up = min(max(np.float32(0.5) - ray_y, zero), one)
                for c in range(3):
                    picture[row, column, c] += share * (light.horizon[c] + up * (light.zenith[c] - light.horizon[c]))
                continue
            kind, t = bodies.kind[n], depth[i, j]
            x, y, z = t * ray_x, t * ray_y, t
            # On the unit body.
            ax, ay, az = x - bodies.centre[n, 0], y - bodies.centre[n, 1], z - bodies.centre[n, 2]
            p0 = local[n, 0, 0] * ax + local[n, 0, 1] * ay + local[n, 0, 2] * az
            p1 = local[n, 1, 0] * ax + local[n, 1, 1] * ay + local[n, 1, 2] * az
            p2 = local[n, 2, 0] * ax + local[n, 2, 1] * ay + local[n, 2, 2] * az
            h0, h1, h2 = frames.half[n, 0], frames.half[n, 1], frames.half[n, 2]
            n0, n1, n2 = zero, zero, zero
            s = bodies.surface[n]
            if kind == BOX:
                m0, m1, m2 = abs(p0), abs(p1), abs(p2)
                if m0 >= m1 and m0 >= m2:
                    n0 = one if p0 > 0 else -one
                    u, v = p1 * h1, p2 * h2
                    s += 0 if p0 > 0 else 1
                elif m1 >= m2:
                    n1 = one if p1 > 0 else -one
                    u, v = p0 * h0, p2 * h2
                    s += 2 if p1 > 0 else 3
                else:
                    n2 = one if p2 > 0 else -one
                    u, v = p0 * h0, p1 * h1
                    s += 4 if p2 > 0 else 5
            elif kind == BALL:
                n0, n1, n2 = p0, p1, p2
                u, v = math.atan2(p1, p0) * h0, math.asin(min(max(p2, -one), one)) * h2
            elif abs(p2) > np.float32(0.9995):
                n2 = one if p2 > 0 else -one
                u, v = p0 * h0, p1 * h1
                s += 1
            else:
                n0, n1 = p0, p1
                u, v = math.atan2(p1, p0) * h0, p2 * h2
            # Normals go by the transpose of the map to the unit body.
            nx = n0 * local[n, 0, 0] + n1 * local[n, 1, 0] + n2 * local[n, 2, 0]
            ny = n0 * local[n, 0, 1] + n1 * local[n, 1, 1] + n2 * local[n, 2, 1]
            nz = n0 * local[n, 0, 2] + n1 * local[n, 1, 2] + n2 * local[n, 2, 2]
            length = one / math.sqrt(nx * nx + ny * ny + nz * nz)
            if bodies.hollow[n]:
                length = -length
            nx, ny, nz = nx * length, ny * length, nz * length
            ray = one / math.sqrt(ray_x * ray_x + ray_y * ray_y + one)
            facing = -(nx * ray_x + ny * ray_y + nz) * ray

            footprint = t * step / math.sqrt(max(facing, _LEAST_COSINE))  # metres on the surface
            place = surfaces.place
            red, green, blue = zero, zero, zero
            if surfaces.texture[s, 0] >= 0:
                red, green, blue = _look_up(
                    texels,
                    first,
                    surfaces.texture[s, 0],
                    place[s, 0, 0] * u + place[s, 0, 1] * v + place[s, 0, 2],
                    place[s, 1, 0] * u + place[s, 1, 1] * v + place[s, 1, 2],
                    _level(math.sqrt(place[s, 0, 0] ** 2 + place[s, 1, 0] ** 2) * footprint),
                )
            grain = one
            if surfaces.grain[s, 0] > 0:
                scale = surfaces.grain[s, 1]
                rough, _, _ = _look_up(
                    texels, first, surfaces.texture[s, 1], u * scale, v * scale, _level(scale * footprint)
                )
                grain = max(one + surfaces.grain[s, 0] * (rough - np.float32(0.5)), zero)

            lx = light.position[0] + spots[spot, 0] - x
            ly = light.position[1] - y
            lz = light.position[2] + spots[spot, 1] - z
            way = math.sqrt(lx * lx + ly * ly + lz * lz)
            cosine = (nx * lx + ny * ly + nz * lz) / way
            lamp, shine = zero, zero
            if cosine > 0 and _lit(bodies, frames, n, x, y, z, lx, ly, lz):
                fall = light.reach / way
                strength = fall * fall if light.reach > 0 else one
                lamp = min(cosine * strength, np.float32(3.0))
                if surfaces.gloss[s] > 0:
                    hx, hy, hz = lx / way - ray_x * ray, ly / way - ray_y * ray, lz / way - ray
                    half = (nx * hx + ny * hy + nz * hz) / math.sqrt(hx * hx + hy * hy + hz * hz)
                    shine = surfaces.gloss[s] * max(half, zero) ** 60 * strength
            front = light.frontal * facing + surfaces.glow[s]
            picture[row, column, 0] += share * (
                (surfaces.base[s, 0] + surfaces.gain[s, 0] * red)
                * grain
                * (light.ambient[0] + front + lamp * light.colour[0])
                + shine * light.colour[0]
            )
            picture[row, column, 1] += share * (
                (surfaces.base[s, 1] + surfaces.gain[s, 1] * green)
                * grain
                * (light.ambient[1] + front + lamp * light.colour[1])
                + shine * light.colour[1]
            )
            picture[row, column, 2] += share * (
                (surfaces.base[s, 2] + surfaces.gain[s, 2] * blue)
                * grain
                * (light.ambient[2] + front + lamp * light.colour[2])
                + shine * light.colour[2]
            )
