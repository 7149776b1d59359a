"""One picture: read from any file, cut out, and augmented."""

import numpy as np
import pytest
import tensorflow as tf
from coloured import picture
from PIL import Image

from keras_mobilevit import data


def grey16():
    return Image.fromarray(np.full((30, 40), 200 * 256, "uint16"))


def palette():
    return picture((200, 100, 50)).convert("P", palette=Image.ADAPTIVE)


@pytest.mark.parametrize(
    "image, name, expected",
    [
        (picture((200, 100, 50)), "a.jpg", (200, 100, 50)),
        (picture((200, 100, 50)).convert("CMYK"), "a.jpg", (200, 100, 50)),
        (palette(), "a.gif", (200, 100, 50)),
        (Image.new("L", (40, 30), 77), "a.png", (77, 77, 77)),
        (Image.new("1", (40, 30), 1), "a.bmp", (255, 255, 255)),
        (grey16(), "a.png", (200, 200, 200)),
        (grey16(), "a.tiff", (200, 200, 200)),
        (Image.new("RGBA", (40, 30), (9, 9, 9, 0)), "a.png", (255,) * 3),
        (Image.new("LA", (40, 30), (77, 255)), "a.webp", (77, 77, 77)),
    ],
)
def test_any_kind_of_picture(tmp_path, image, name, expected):
    image.save(tmp_path / name)
    found = data.load_picture(tmp_path / name)
    assert found.shape == (30, 40, 3) and found.dtype == np.uint8
    np.testing.assert_allclose(found.mean(axis=(0, 1)), expected, atol=6)
    encoded = (tmp_path / name).read_bytes()
    np.testing.assert_array_equal(data.load_picture(encoded), found)


def test_first_frame_and_upright(tmp_path):
    frames = [Image.new("RGB", (40, 30), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (data.load_picture(tmp_path / "a.gif")[0, 0] == (255, 0, 0)).all()
    halves = np.zeros((30, 40, 3), "uint8")
    halves[:, :20] = 255  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    Image.fromarray(halves).save(tmp_path / "a.png", exif=exif)
    found = data.load_picture(tmp_path / "a.png")
    assert found.shape == (40, 30, 3)
    assert found[:20].min() == 255 and found[20:].max() == 0


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_large_pictures_are_reduced(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    whole = picture((200, 100, 50), size=(400, 330))
    whole.save(path)
    found = data.load_picture(path, short_side=50)
    assert found.shape in ((50, 60, 3), (50, 61, 3))
    np.testing.assert_allclose(found.mean(axis=(0, 1)), (199, 99, 49), atol=3)
    assert data.load_picture(path, short_side=1000).shape == (330, 400, 3)


def test_evaluation_cuts_out_the_centre():
    wide = np.zeros((40, 100, 3), "uint8")
    wide[:, 30:70] = 255
    assert data.fit_picture(wide, 40, 40).min() == 255
    assert data.fit_picture(wide, 20, 20).shape == (20, 20, 3)
    square = np.zeros((40, 40, 3), "uint8")
    square[10:30, 10:30] = 255
    assert data.fit_picture(square, 40, 40).min() == 0
    assert data.fit_picture(square, 40, 40, crop_pct=0.4).min() == 255


@pytest.mark.parametrize("height, width", [(50, 80), (10, 300), (300, 10)])
def test_boxes_are_as_promised(height, width):
    augment = data.Augment(scale=(0.2, 0.6))
    boxes = np.array(
        [augment.box(height, width, (7, number)) for number in range(300)]
    )
    top, left, box_height, box_width = boxes.T
    assert boxes.min() >= 0 and min(box_height.min(), box_width.min()) >= 1
    assert (top + box_height).max() <= height
    assert (left + box_width).max() <= width
    if (height, width) == (50, 80):
        area = box_height * box_width / (height * width)
        assert area.min() > 0.18 and area.max() < 0.63
        assert 0.35 < area.mean() < 0.45
        ratio = box_width / box_height
        assert ratio.min() > 0.72 and ratio.max() < 1.4
        assert top.max() > 15 and left.max() > 30
    else:  # no box of this shape fits: a central one
        assert (boxes == boxes[0]).all()
        assert box_height[0] * box_width[0] in (130, 10 * 8)


def test_flip_mirrors_about_half():
    image = tf.constant(np.arange(48, dtype="uint8").reshape(4, 4, 3))
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    flipped = 0
    for number in range(100):
        plain = data.Augment(flip=False, **whole)(image, 4, (1, number))
        np.testing.assert_array_equal(plain, image)
        found = data.Augment(**whole)(image, 4, (1, number)).numpy()
        mirrored = (found == image.numpy()[:, ::-1]).all()
        assert mirrored or (found == image.numpy()).all()
        flipped += mirrored
    assert 35 < flipped < 65


@pytest.mark.parametrize(
    "options", [{"scale": (0, 1)}, {"scale": (0.5, 0.2)}, {"ratio": (0, 1)}]
)
def test_wrong_augmentation(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}`"):
        data.Augment(**options)
