"""Random changes of training images, in the data pipeline: Keras' own augmentation layers would slow the saved model."""

from __future__ import annotations

import numpy as np

from daemon.config import Augmentation
from daemon.models.backend import tf


def augment(images: tf.Tensor, limits: Augmentation) -> tf.Tensor:
    """Thicken or thin, coarsen, and warp each image at random: turn, zoom, shear, shift, tilt and wobble.

    Args:
        images: (n, 28, 28) uint8.
        limits: the largest changes.

    Returns:
        (n, 28, 28, 1) float32 in 0..1.

    """
    x = tf.cast(images, tf.float32)[..., None] / 255.0
    x = _coarsen(_change_thickness(x, limits.thickness), limits.coarse_share)
    return _warp(x, limits)


def _change_thickness(x: tf.Tensor, limit: float) -> tf.Tensor:
    """Mix each image with its grey dilation or erosion by one pixel."""
    amount = tf.random.uniform((tf.shape(x)[0], 1, 1, 1), -limit, limit)
    thicker = tf.nn.max_pool2d(x, 3, 1, "SAME")
    thinner = -tf.nn.max_pool2d(-x, 3, 1, "SAME")
    # Thin strokes are not thinned away: the less there is to erode, the less is eroded.
    bold = tf.clip_by_value(
        4 * tf.reduce_mean(thinner, (1, 2, 3), keepdims=True) / tf.reduce_mean(x + 1e-6, (1, 2, 3), keepdims=True), 0, 1
    )
    return x + tf.nn.relu(amount) * (thicker - x) - tf.nn.relu(-amount) * bold * (x - thinner)


def _coarsen(x: tf.Tensor, share: float) -> tf.Tensor:
    """Reduce some of the images to 8 to 16 pixels and enlarge them again."""
    side = tf.random.uniform((), 8, 17, tf.int32)
    coarse = tf.image.resize(tf.image.resize(x, (side, side), "area"), (28, 28), "bicubic")
    chosen = tf.random.uniform((tf.shape(x)[0], 1, 1, 1)) < share
    return tf.where(chosen, tf.clip_by_value(coarse, 0.0, 1.0), x)


def _warp(x: tf.Tensor, limits: Augmentation) -> tf.Tensor:
    """Look each pixel up, with bilinear interpolation, where a random projective and elastic map says."""
    n = tf.shape(x)[0]

    def either_way(limit: float) -> tf.Tensor:
        return tf.random.uniform((n, 1, 1), -limit, limit)

    angle = either_way(limits.rotation_degrees * np.pi / 180)
    wider, higher, shear = 1 + either_way(limits.zoom), 1 + either_way(limits.zoom), either_way(limits.shear)
    centre = (28 - 1) / 2
    row, column = tf.meshgrid(tf.range(28.0) - centre, tf.range(28.0) - centre, indexing="ij")
    depth = 1 / (1 + (either_way(limits.perspective) * row + either_way(limits.perspective) * column) / 28)
    # From output to input coordinates: zoom @ rotation @ shear, about the centre of the image.
    across = depth * wider * (tf.cos(angle) * column + (shear * tf.cos(angle) - tf.sin(angle)) * row)
    down = depth * higher * (tf.sin(angle) * column + (shear * tf.sin(angle) + tf.cos(angle)) * row)
    wobble = tf.image.resize(
        tf.random.uniform((n, 5, 5, 2), -limits.elastic_pixels, limits.elastic_pixels), (28, 28), "bicubic"
    )
    down = down + wobble[..., 0] + centre + either_way(limits.shift_pixels)
    across = across + wobble[..., 1] + centre + either_way(limits.shift_pixels)

    padded = tf.reshape(tf.pad(x[..., 0], ((0, 0), (1, 2), (1, 2))), (n, -1))  # what lies outside is paper
    down, across = tf.clip_by_value(down + 1, 0.0, 29.0), tf.clip_by_value(across + 1, 0.0, 29.0)
    top, left = tf.floor(down), tf.floor(across)
    below, beside = down - top, across - left
    corner = tf.reshape(tf.cast(top * 31 + left, tf.int32), (n, -1))

    def pixels(offset: int) -> tf.Tensor:
        return tf.reshape(tf.gather(padded, corner + offset, batch_dims=1), (n, 28, 28))

    upper = pixels(0) * (1 - beside) + pixels(1) * beside
    lower = pixels(31) * (1 - beside) + pixels(32) * beside
    return (upper * (1 - below) + lower * below)[..., None]
