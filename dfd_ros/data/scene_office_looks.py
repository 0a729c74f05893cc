"""How the surfaces of made-up offices look: paint with hardly any texture, dark plastic, wood, cloth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dfd_ros.data.scene_layout import Layout, Look

_WOOD = np.array([0.5, 0.32, 0.2])  # reflectance of beech or oak


def pale(layout: Layout, distance: float) -> Look:
    """Nearly white or grey paint, mostly so smooth that there is nothing to focus on."""
    rng, look = layout.rng, layout.plain(distance)
    value = rng.uniform(0.35, 0.9) ** 1.5
    roughness, density = look.grain
    grain = (roughness * (0.15 if rng.random() < 0.8 else 0.6), density)
    return replace(look, base=value * np.exp(rng.normal(0.0, 0.06, 3)), grain=grain)


def dark(layout: Layout, distance: float) -> Look:
    """Black or dark grey plastic, a little glossy."""
    rng, look = layout.rng, layout.plain(distance)
    base = rng.uniform(0.01, 0.08) * np.exp(rng.normal(0.0, 0.1, 3))
    return replace(look, base=base, grain=(0.3 * look.grain[0], look.grain[1]), gloss=float(rng.uniform(0.0, 0.2)))


def wood(layout: Layout, distance: float) -> Look:
    """Veneer, lighter or darker."""
    rng, look = layout.rng, layout.plain(distance)
    base = _WOOD * rng.uniform(0.4, 1.4) * np.exp(rng.normal(0.0, 0.1, 3))
    return replace(look, base=base, gloss=float(rng.uniform(0.0, 0.3)))


def carpet(layout: Layout, distance: float) -> Look:
    """A floor: of one colour, or tiles, parquet and the like."""
    return layout.plain(distance) if layout.rng.random() < 0.6 else layout.look(distance, 0.3)


def writing(layout: Layout, distance: float) -> Look:
    """A white board with marks on it."""
    rng, look = layout.rng, layout.look(distance, 0.0)
    marks = (layout.pick(layout.bank.pattern), 0)
    ink = np.full(3, -rng.uniform(0.1, 0.7))
    return replace(look, texture=marks, base=np.full(3, 0.85), gain=ink, grain=(0.0, 1.0), gloss=0.0)
