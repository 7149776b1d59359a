"""Random changes of training pictures, each a pure function of its seed."""

import dataclasses
import math

import tensorflow as tf

_TRIES = 10  # boxes drawn until one fits, as in torchvision


@dataclasses.dataclass(frozen=True)
class Augment:
    """A random part of the picture, resized, and at random mirrored.

    The published recipe for ImageNet draws boxes of `scale=(0.08, 1.0)`; small
    data sets and short runs learn faster from larger ones.

    Args:
        scale: least and greatest area of the box, as a part of the picture's
            area, in (0, 1].
        ratio: least and greatest width / height of the box.
        flip: whether every second picture is mirrored left to right. Wrong
            where the side has a meaning, as in digits and letters.

    Raises:
        ValueError: a range is empty or out of its bounds.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True

    def __post_init__(self):
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(
                "`scale` must be (least, greatest), both in (0, 1]. "
                f"Received: scale={self.scale}"
            )
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(
                "`ratio` must be (least, greatest), both positive. "
                f"Received: ratio={self.ratio}"
            )

    def __call__(
        self, picture: tf.Tensor, size: int, seed: tf.Tensor
    ) -> tf.Tensor:
        """Changes one picture.

        Args:
            picture: uint8 `(height, width, 3)`.
            size: side of the result in pixels.
            seed: two integers; equal seeds give equal results.

        Returns:
            uint8 `(size, size, 3)`.
        """
        shape = tf.shape(picture)
        top, left, height, width = self.box(shape[0], shape[1], seed)
        part = picture[top : top + height, left : left + width]
        part = tf.image.resize(part, (size, size), antialias=True)
        part = tf.cast(tf.clip_by_value(tf.round(part), 0, 255), tf.uint8)
        if self.flip:
            part = tf.image.stateless_random_flip_left_right(
                part, tf.random.fold_in(seed, 1)
            )
        return part

    def box(
        self, height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Draws the box of a picture of `height` by `width` pixels.

        Where no drawn box fits, it is the largest central one whose
        proportions are allowed.

        Returns:
            Its top, left, height and width in pixels, int32 scalars.
        """
        draws = tf.random.stateless_uniform((4, _TRIES), seed)
        sides = tf.cast(tf.stack([height, width]), tf.float32)
        low, high = self.scale
        area = sides[0] * sides[1] * (low + (high - low) * draws[0])
        low, high = map(math.log, self.ratio)
        ratio = tf.exp(low + (high - low) * draws[1])
        boxes = tf.round(
            tf.stack([tf.sqrt(area / ratio), tf.sqrt(area * ratio)])
        )
        fits = tf.reduce_all((boxes <= sides[:, None]) & (boxes >= 1), axis=0)
        first = tf.argmax(tf.cast(fits, tf.int32))

        bounded = tf.clip_by_value(sides[1] / sides[0], *self.ratio)
        central = tf.round(
            tf.stack(
                [
                    tf.minimum(sides[0], sides[1] / bounded),
                    tf.minimum(sides[1], sides[0] * bounded),
                ]
            )
        )
        any_fits = tf.reduce_any(fits)
        box = tf.where(any_fits, boxes[:, first], tf.maximum(central, 1))
        place = tf.where(any_fits, draws[2:, first], 0.5)
        corner = tf.cast(tf.floor(place * (sides - box + 1)), tf.int32)
        # A draw next to 1 may round up to the end.
        box = tf.cast(box, tf.int32)
        corner = tf.minimum(corner, tf.cast(sides, tf.int32) - box)
        return corner[0], corner[1], box[0], box[1]
