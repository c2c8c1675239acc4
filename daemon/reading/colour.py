"""Grey levels of a coloured picture: its light, or the one colour in which ink stands out much more.

Yellow ink is nearly as light as paper, and dark as night in blue light. Light is Pillow's "L", ITU-R BT.601's luma.
"""

from __future__ import annotations

import cv2
import numpy as np

LEAD = 1.5  # by how much more ink must stand out in a colour; it is coarser and noisier in JPEGs
WEAK = 15.0  # grey levels; pictures whose ink stands out by less in their light may show it in a colour
AROUND = 4  # the paper around a pixel is a square of a fourth of the longer side

# Fitted on scans of 13 writers, painted in six inks on off-white paper under uneven light, as JPEGs: contrasts in light of
# 9 to 27 but for yellow (4 to 7); the best colour has 3.8 times that of yellow's, 2.1 of orange's, 1.5 of light blue's, and
# at most 1.2 times that of the unpainted scans.


def strongest(rgb: np.ndarray) -> np.ndarray:
    """Turn (height, width, 3) uint8 into (height, width) uint8."""
    light = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    colours = cv2.split(rgb)
    contrasts = [ink_contrast(colour) for colour in colours]
    best = int(np.argmax(contrasts))
    return colours[best] if contrasts[best] > LEAD * ink_contrast(light) else light


def ink_contrast(grey: np.ndarray) -> float:
    """How far (height, width) uint8 grey levels are from those around them, their root mean square; 0 to 255."""
    side = max(3, max(grey.shape) // AROUND)
    levels = grey.astype(np.float32)
    return float(cv2.norm(levels, cv2.blur(levels, (side, side))) / max(grey.size, 1) ** 0.5)
