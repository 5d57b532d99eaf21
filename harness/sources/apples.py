"""Drawn apples: a built-in data set that is diverse, like the paper's photographs of apples.

Every picture has its own scene: one to three apples of one variety, a background and light, plain
enough for a small GAN to learn in seconds. A picture is a function of (seed, index, size) alone.
"""

import colorsys
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw


class Variety(NamedTuple):
    """The look of an apple; hues are turns of the colour circle."""

    hue: float
    blush: float
    """Hue of the side in the sun."""
    value: float
    height: float
    """Height over width."""
    stripes: float
    speckles: float


VARIETIES = {
    "braeburn": Variety(0.09, 0.99, 0.80, 0.95, 0.9, 0.3),
    "golden delicious": Variety(0.145, 0.12, 0.92, 1.00, 0.0, 0.5),
    "granny smith": Variety(0.26, 0.24, 0.72, 0.92, 0.0, 0.4),
    "pink lady": Variety(0.13, 0.95, 0.90, 1.05, 0.2, 0.1),
    "red delicious": Variety(0.98, 0.97, 0.62, 1.12, 0.4, 0.2),
    "russet": Variety(0.10, 0.07, 0.62, 0.84, 0.0, 0.9),
}
"""Varieties by the label of their images."""


def variety(seed: int, index: int) -> str:
    """Return the label of a picture: every six in a row show every variety once."""
    names = list(VARIETIES)
    order = np.random.default_rng([seed, index // len(names)]).permutation(len(names))
    return names[order[index % len(names)]]


def draw(seed: int, index: int, size: int) -> Image.Image:
    """Draw one picture, RGB, size x size."""
    rng = np.random.default_rng([seed, index, 1])
    picture = _Picture(rng, size)
    kind = VARIETIES[variety(seed, index)]
    light = rng.uniform(-0.8, 0.8)
    apples = int(rng.choice([1, 1, 1, 1, 1, 2, 2, 3]))
    radius = size * rng.uniform(0.34, 0.44) / apples**0.5
    places = _places(rng, apples, size, radius)
    for x, y in sorted(places, key=lambda place: place[1]):
        picture.apple(kind, light, x, y, radius * rng.uniform(0.85, 1.1))
    pixels = picture.canvas * rng.uniform(0.8, 1.1)
    return Image.fromarray(np.clip(pixels * 255 + 0.5, 0, 255).astype(np.uint8))


def _places(rng: np.random.Generator, apples: int, size: int, radius: float) -> np.ndarray:
    """Return centres [apples, 2] in the picture: of 12 draws, the one with the least overlap."""
    low, high = radius * 0.9, size - radius * 0.9
    tries = rng.uniform(low, high, (12, apples, 2))
    if apples == 1:
        return size / 2 + (tries[0] - size / 2) * 0.5
    gaps = np.linalg.norm(tries[:, :, None] - tries[:, None], axis=-1) + np.eye(apples) * 9 * size
    return tries[gaps.min(axis=(1, 2)).argmax()]


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw one of three kinds of background: float RGB [size, size, 3] in 0..1."""
    y, x = np.mgrid[:size, :size] / size
    first = _colour(rng.uniform(), rng.uniform(0, 0.35), rng.uniform(0.35, 1))
    second = _colour(rng.uniform(), rng.uniform(0, 0.45), rng.uniform(0.3, 1))
    kind = rng.integers(3)
    if kind == 0:  # a wall
        share = np.zeros((size, size))
    elif kind == 1:  # light falling off
        angle = rng.uniform(0, 2 * np.pi)
        share = 0.5 + 0.7 * ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle))
    else:  # a table before a wall
        share = 1 / (1 + np.exp(-(y - rng.uniform(0.4, 0.75)) * size / 2))
    return first + (second - first) * np.clip(share, 0, 1)[..., None]


class _Picture:
    """A picture in the making, with the random numbers that it is drawn from."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.canvas, self.size, self._rng = _background(rng, size), size, rng
        """Float RGB [size, size, 3] in 0..1."""

    def _polygon(self, points: list[tuple[float, float]], colour: np.ndarray) -> None:
        """Fill a polygon, antialiased by drawing its mask four times as large."""
        size = self.size
        mask = Image.new("L", (4 * size, 4 * size))
        ImageDraw.Draw(mask).polygon([(4 * x, 4 * y) for x, y in points], fill=255)
        alpha = np.asarray(mask.resize((size, size), Image.Resampling.BOX))[..., None] / 255
        self.canvas += (colour - self.canvas) * alpha

    def leaf(self, x: float, y: float, length: float) -> None:
        """Draw a pointed leaf that begins at (x, y)."""
        rng = self._rng
        angle, width = rng.uniform(0, 2 * np.pi), rng.uniform(0.18, 0.35)
        along = np.linspace(0, 1, 12)
        across = width * np.sin(np.pi * along)
        outline = np.concatenate([along + 1j * across, (along - 1j * across)[::-1]])
        outline = (x + 1j * y) + length * np.exp(1j * angle) * outline
        colour = _colour(rng.uniform(0.2, 0.4), rng.uniform(0.4, 0.9), rng.uniform(0.25, 0.6))
        self._polygon([(float(p.real), float(p.imag)) for p in outline], colour)

    def apple(self, kind: Variety, light: float, x: float, y: float, radius: float) -> None:
        """Draw an apple with shadow, skin, shine, stem, and sometimes a leaf."""
        rng, size = self._rng, self.size
        rows, columns = np.mgrid[:size, :size]
        tilt = rng.normal(0, 0.25)
        dx, dy = (columns - x) / radius, (rows - y) / radius
        u, v = dx * np.cos(tilt) + dy * np.sin(tilt), dy * np.cos(tilt) - dx * np.sin(tilt)
        v = v / kind.height
        theta, distance = np.arctan2(u, -v), np.hypot(u, v)  # theta: from the stem
        # shoulders next to the stem, a hollow under it, narrower towards the flower end
        edge = 0.98 - 0.17 * np.exp(-((theta / 0.33) ** 2)) - 0.09 * np.cos(theta / 2) ** 8
        edge -= 0.10 * np.exp(-(((np.pi - np.abs(theta)) / 0.45) ** 2)) + 0.06 * (v > 0) * v**2
        alpha = np.clip((edge - distance) * radius + 0.5, 0, 1)[..., None]

        shadow = np.exp(-(((dx + light * 0.4) / 1.05) ** 2) - ((dy - 0.85) / 0.3) ** 2)
        self.canvas *= 1 - 0.55 * shadow[..., None]

        height = np.sqrt(np.clip(1 - (distance / edge) ** 2, 0, 1))
        lit = np.clip(0.35 + 0.65 * (0.75 * height - 0.4 * dy + 0.4 * light * dx), 0.12, 1)
        turn = rng.uniform(-np.pi, np.pi)
        blush = 0.5 + 0.5 * np.sin(u * 2.2 + turn) * np.cos(v * 1.5)
        blush = np.clip(blush * rng.uniform(0.6, 1.4), 0, 1)
        waves = np.sin(u / (0.25 + height) * 16 + np.sin(v * 5 + turn))
        blush = np.clip(blush + kind.stripes * 0.35 * waves, 0, 1)[..., None]
        hue = kind.hue + rng.normal(0, 0.012)
        ground = _colour(hue, rng.uniform(0.6, 0.9), kind.value)
        sunny = _colour(kind.blush + rng.normal(0, 0.012), rng.uniform(0.7, 0.95), kind.value)
        skin = ground + (sunny - ground) * blush
        spots = rng.spawn(1)[0].uniform(size=(size, size)) < 0.08 * kind.speckles
        skin = skin + (np.array([0.9, 0.85, 0.6]) - skin) * (0.5 * spots * height)[..., None]
        skin = skin * lit[..., None]
        shine = np.exp(-((dx - 0.4 * light) ** 2 + (dy + 0.45) ** 2) / rng.uniform(0.02, 0.05))
        skin = skin + (1 - skin) * (rng.uniform(0.3, 0.8) * shine)[..., None]
        self.canvas += (skin - self.canvas) * alpha

        up = np.exp(1j * (tilt + rng.normal(0, 0.15))) * -1j * radius
        foot, width = (x + 1j * y) + 0.72 * kind.height * up, 0.05 * radius
        tip = foot + up * rng.uniform(0.25, 0.5) + rng.normal(0, 0.06) * radius
        stem = [foot - width, foot + width, tip + width, tip - width]
        self._polygon([(p.real, p.imag) for p in stem], _colour(0.08, 0.6, rng.uniform(0.2, 0.4)))
        if rng.uniform() < 0.4:
            self.leaf(float(foot.real), float(foot.imag), 0.6 * radius)
