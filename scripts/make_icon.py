"""Draws the extension's icon: an axial chest slice, segmentation contours on the left, CT on the right.

python scripts/make_icon.py        writes it to both places where Slicer wants it
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 128  # pixels, as Slicer's templates have it
OVERSAMPLING = 8
ROOT = Path(__file__).resolve().parent.parent
TARGETS = (ROOT / "MedLoRDSlicer.png", ROOT / "MedLoRDSlicer/Resources/Icons/MedLoRDSlicer.png")

# Ellipses in units of the icon's size: centre x and y, half width and height, grey of the CT, contour colour.
STRUCTURES = {
    "body": (0.50, 0.53, 0.43, 0.32, 150, (214, 160, 120)),
    "right lung": (0.295, 0.50, 0.145, 0.215, 28, (110, 190, 235)),
    "left lung": (0.705, 0.50, 0.145, 0.215, 28, (110, 190, 235)),
    "heart": (0.555, 0.475, 0.135, 0.145, 176, (230, 90, 90)),
    "aorta": (0.575, 0.655, 0.037, 0.037, 205, (240, 120, 90)),
    "vertebra": (0.50, 0.735, 0.072, 0.060, 245, (240, 225, 165)),
}
BACKGROUND = (22, 26, 34, 255)


def draw_icon() -> Image.Image:
    """The icon, RGBA, SIZE x SIZE pixels."""
    size = SIZE * OVERSAMPLING
    tissue = Image.new("L", (size, size), 0)
    outlines = Image.new("RGBA", (size, size))
    for x, y, half_width, half_height, grey, colour in STRUCTURES.values():
        box = [
            size * (x - half_width),
            size * (y - half_height),
            size * (x + half_width),
            size * (y + half_height),
        ]
        ImageDraw.Draw(tissue).ellipse(box, fill=grey)
        ImageDraw.Draw(outlines).ellipse(box, fill=(*colour, 90), outline=(*colour, 255), width=size // 42)

    # The CT half has the grain of a CT.
    grain = np.random.default_rng(2026).normal(0, 60, (SIZE, SIZE))
    grain = np.asarray(
        Image.fromarray(grain.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
    )
    grey = np.asarray(tissue.filter(ImageFilter.GaussianBlur(size / 160)), dtype=np.float32)
    grey = np.clip(grey + np.where(grey > 4, 0.35 * grain, 0), 0, 255).astype(np.uint8)
    ct = Image.fromarray(grey).convert("RGBA")

    icon = Image.new("RGBA", (size, size), BACKGROUND)
    icon.paste(ct, mask=Image.fromarray(((grey > 8) * 255).astype(np.uint8)))
    half = size // 2
    icon.paste(BACKGROUND, (0, 0, half, size))
    icon.alpha_composite(outlines.crop((0, 0, half, size)))
    ImageDraw.Draw(icon).line(
        [(half, size * 0.14), (half, size * 0.92)], fill=(255, 255, 255, 230), width=size // 64
    )

    rounded = Image.new("L", (size, size), 0)
    ImageDraw.Draw(rounded).rounded_rectangle([0, 0, size - 1, size - 1], radius=size // 6, fill=255)
    icon.putalpha(rounded)
    return icon.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    drawn = draw_icon()
    for target in TARGETS:
        target.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(target, optimize=True)
