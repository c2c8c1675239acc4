"""Pictures of nothing but black and white dots, as fax machines send and programs screen grey levels. No state."""

from __future__ import annotations

from PIL import Image, ImageFilter

SCREENED = 48, 1024  # pixels; a smaller picture is taken as it is, and in a larger one dots are joined as it is reduced
BLUR = 1.0  # pixels; so much joins the dots of a screen, and strokes that a threshold broke
LEAST_STRETCH, MOST_STRETCH = 1.5, 3.0  # times as many dots across as down: fax machines have 204 and 98 to the inch


def to_grey(picture: Image.Image) -> Image.Image:
    """Bring a picture of mode "1" to mode "L", with as many dots to the inch down as across."""
    grey = picture.convert("L")
    if max(grey.size) < SCREENED[0]:
        return grey
    if max(grey.size) <= SCREENED[1]:
        grey = grey.filter(ImageFilter.GaussianBlur(BLUR))
    across, down = picture.info.get("dpi", (1, 1))
    if LEAST_STRETCH * down < across < MOST_STRETCH * down:
        grey = grey.resize((grey.width, round(grey.height * across / down)))
    return grey
