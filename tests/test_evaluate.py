"""Files are run by name, evaluated, compared, and asked for a prediction."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image

from keras_mobilevit.tflite import metadata
from keras_mobilevit.tflite.compare import compare
from keras_mobilevit.tflite.compare import paired_interval
from keras_mobilevit.tflite.evaluate import evaluate
from keras_mobilevit.tflite.evaluate import wilson_interval
from keras_mobilevit.tflite.interpreter import Runner
from keras_mobilevit.tflite.interpreter import delegation
from keras_mobilevit.tflite.interpreter import open_interpreter
from keras_mobilevit.tflite.predict import fit_picture
from keras_mobilevit.tflite.predict import load_picture
from keras_mobilevit.tflite.predict import predict


@pytest.fixture(scope="module")
def expected(tiny_model, tiny_pictures):
    """What the Keras model gives for the pictures."""
    return tiny_model.predict(tiny_pictures.astype("float32"), verbose=0)


# Running a file


def test_float_file_equals_keras(tiny_float_file, tiny_pictures, expected):
    actual = Runner(tiny_float_file, 1)(tiny_pictures)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    # The pictures are told apart, so a mix-up of rows would show.
    assert np.ptp(expected, axis=0).max() > 0.05


def test_integer_files_are_near_keras(tiny_files, tiny_pictures, expected):
    actual = Runner(tiny_files["int8"], 1)(tiny_pictures)
    assert np.abs(actual - expected).max() < 0.2


@pytest.mark.parametrize("name", ["uint8_io", "int8_io"])
def test_integer_ends_are_quantized_as_the_file_says(
    tiny_files, tiny_pictures, name
):
    """The file with float ends does the same inside itself."""
    np.testing.assert_allclose(
        Runner(tiny_files[name], 1)(tiny_pictures),
        Runner(tiny_files["int8"], 1)(tiny_pictures),
        atol=1e-6,
    )


def test_float_pixels_equal_integer_pixels(tiny_files, tiny_pictures):
    runner = Runner(tiny_files["int8_io"], 1)
    np.testing.assert_array_equal(
        runner(tiny_pictures[:4]), runner(tiny_pictures[:4].astype("float32"))
    )


def test_without_delegate_all_ops_are_outside(tiny_float_file):
    inside = delegation(open_interpreter(tiny_float_file, 1))
    bare = delegation(open_interpreter(tiny_float_file, 1, False))
    assert inside.partitions >= 1
    assert bare.partitions == 0
    assert sum(bare.outside.values()) == bare.ops == inside.ops
    assert sum(inside.outside.values()) < inside.ops


def test_no_pictures_give_no_rows(tiny_float_file):
    assert Runner(tiny_float_file)(np.zeros((0, 32, 32, 3))).shape == (0, 7)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_number_of_threads(tiny_float_file, threads):
    with pytest.raises(ValueError, match="num_threads"):
        Runner(tiny_float_file, threads)


def test_damaged_file_does_not_reach_the_runtime(tiny_float_file, tmp_path):
    path = tmp_path / "cut.tflite"
    path.write_bytes(tiny_float_file.read_bytes()[:-5000])
    with pytest.raises(ValueError, match="damaged"):
        Runner(path)


def test_output_is_chosen_by_name(tiny_float_file):
    assert Runner(tiny_float_file, output="predictions").output_shape == (7,)
    with pytest.raises(ValueError, match="`output`.*predictions"):
        Runner(tiny_float_file, output="probs")


# evaluate


def test_evaluate_counts(tiny_float_file, tiny_pictures, expected):
    labels = expected.argmax(axis=1)
    labels[:12] = expected[:12].argsort(axis=1)[:, -2]  # second best
    labels[12:18] = expected[12:18].argmin(axis=1)  # worst
    found = evaluate(tiny_float_file, (tiny_pictures, labels), progress=False)
    assert (found.n, found.classes) == (48, 7)
    assert found.top1 == 30 / 48
    assert found.top5 == 42 / 48
    assert found.interval == wilson_interval(30, 48)
    assert found.ms_per_picture > 0
    assert "62.50" in str(found) and "87.50" in str(found)
    assert json.loads(found.to_json())["top1"] == found.top1


def test_forms_of_data(tiny_int8_file, tiny_pictures):
    import tensorflow as tf

    labels = np.arange(48) % 7
    one_hot = np.eye(7, dtype="float32")[labels]
    pair = tiny_pictures, labels
    dataset = tf.data.Dataset.from_tensor_slices(pair)
    forms = (
        pair,
        [(tiny_pictures[:20], labels[:20]), (tiny_pictures[20:], labels[20:])],
        ((x, y) for x, y in zip(tiny_pictures, labels)),
        (tiny_pictures, labels[:, np.newaxis].astype("float32")),
        (tiny_pictures, one_hot),
        dataset.batch(20),
        dataset,
        tf.data.Dataset.from_tensor_slices((tiny_pictures, one_hot)),
    )
    found = [evaluate(tiny_int8_file, f, progress=False) for f in forms]
    assert {(f.n, f.top1, f.top5) for f in found} == {
        (48, found[0].top1, found[0].top5)
    }


def test_wilson_interval():
    # Values of scipy.stats.binomtest(...).proportion_ci(method="wilson").
    assert wilson_interval(97, 100) == pytest.approx(
        (0.9154806, 0.9897455), abs=1e-6
    )
    assert wilson_interval(0, 10) == pytest.approx((0, 0.2775328), abs=1e-6)
    assert wilson_interval(10, 10) == pytest.approx((0.7224672, 1))


def bad(pictures, labels):
    """Data that must be refused: `(data, message)`."""
    import tensorflow as tf

    scaled = pictures.astype("float32")
    scaled[0, 0, 0, 0] = np.nan
    endless = tf.data.Dataset.from_tensors((pictures, labels)).repeat()
    return {
        "nan": ((scaled, labels), "`data` must hold finite"),
        "size": ((pictures[:, :16], labels), r"`data`.*\(32, 32, 3\)"),
        "grey": ((pictures[..., :1], labels), r"`data`.*\(32, 32, 3\)"),
        "high": ((pictures, labels + 5), "`data`.*from 0 to 6"),
        "negative": ((pictures, labels - 1), "`data`.*from 0 to 6"),
        "fraction": ((pictures, labels + 0.5), "`data`.*from 0 to 6"),
        "nan label": ((pictures, labels + np.nan), "`data`.*finite"),
        "text": ((pictures, labels.astype(str)), "`data` must be numbers"),
        "one-hot": ((pictures, np.eye(5)[labels % 5]), "`data`.*7 classes"),
        "fewer": ((pictures, labels[:-1]), "`data`.*label for each"),
        "empty": ([], "`data` must hold pictures"),
        "no rows": ((pictures[:0], labels[:0]), "`data` must hold pictures"),
        "no labels": (pictures, "`data` must be a pair"),
        "dict": ({"image": pictures}, "`data` must be a"),
        "path": ("folder", "`data` must be a"),
        "none": (None, "`data` must be a"),
        "endless": (endless, "`data` must end"),
    }


@pytest.mark.parametrize("case", bad(np.zeros((7, 2, 2, 3)), np.arange(7)))
def test_bad_data(tiny_float_file, tiny_pictures, case):
    data, message = bad(tiny_pictures[:7], np.arange(7))[case]
    with pytest.raises(ValueError, match=message):
        evaluate(tiny_float_file, data, progress=False)


@pytest.mark.parametrize("name", ["float32", "int8_io"])
def test_scaled_pictures_warn(tiny_files, tiny_pictures, name):
    labels = np.zeros(48, "int64")
    with pytest.warns(UserWarning, match=r"`data` lie in \[0, 1\]"):
        evaluate(
            tiny_files[name], (tiny_pictures / 255, labels), progress=False
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(tiny_files[name], (tiny_pictures, labels), progress=False)


# compare


def test_compare(tiny_model, tiny_files, tiny_pictures, expected):
    exact = compare(tiny_files["float32"], expected, tiny_pictures)
    assert exact.agreement == 1 and exact.sqnr_db > 80
    with_model = compare(tiny_files["int8"], tiny_model, tiny_pictures)
    with_file = compare(
        tiny_files["int8"], tiny_files["float32"], tiny_pictures
    )
    assert with_model.n == 48
    assert with_model.sqnr_db == pytest.approx(with_file.sqnr_db, abs=0.1)
    assert 10 < with_model.sqnr_db < exact.sqnr_db
    itself = compare(tiny_files["int8"], tiny_files["int8"], tiny_pictures)
    assert itself.sqnr_db is None and itself.max_error == 0
    with pytest.raises(ValueError, match="`reference`"):
        compare(tiny_files["int8"], expected[:, :3], tiny_pictures)
    assert with_model.change is None and "won" not in str(with_model)


def test_compare_counts_what_only_one_of_the_two_gets_right(
    tiny_files, tiny_pictures
):
    path, n = tiny_files["int8"], 48
    scores = Runner(path)(tiny_pictures)
    answer = scores.argmax(axis=1)
    reference = scores.copy()
    reference[:9] = np.roll(scores[:9], 1, axis=1)  # others than the file
    labels = answer.copy()
    labels[:6] = reference[:6].argmax(axis=1)  # right by the reference
    labels[40:] = (answer[40:] + 1) % scores.shape[1]  # both are wrong
    found = compare(path, reference, tiny_pictures, labels=labels)
    assert (found.won, found.lost) == (3, 6)
    assert found.change == pytest.approx(-3 / n)
    assert found.interval == paired_interval(3, 6, n)
    one_hot = np.eye(scores.shape[1])[labels]
    assert compare(path, reference, tiny_pictures, labels=one_hot) == found
    assert " -6.25 |" in str(found)
    with pytest.raises(ValueError, match=r"`labels` must be integers \(48,\)"):
        compare(path, reference, tiny_pictures, labels=labels[:5])


def test_paired_interval_holds_in_19_of_20_samples():
    generator = np.random.default_rng(0)
    for gain, loss, n in ((0.02, 0.02, 250), (0.01, 0.05, 100), (0, 0.01, 300)):
        samples = generator.multinomial(
            n, [gain, loss, 1 - gain - loss], size=4000
        )
        inside = []
        for won, lost, _ in samples:
            low, high = paired_interval(won, lost, n)
            inside.append(low <= gain - loss <= high)
        assert 0.93 < np.mean(inside) < 0.995
    assert paired_interval(0, 0, 10)[0] == -paired_interval(0, 0, 10)[1]


# predict


def test_predict_arrays_and_labels(
    tiny_float_file, tiny_pictures, expected, tmp_path
):
    labels = list("abcdefg")
    found = predict(tiny_float_file, tiny_pictures[:3], top=2, labels=labels)
    for row, scores in zip(found, expected):
        best = scores.argsort()[::-1][:2]
        assert [s.index for s in row.scores] == list(best)
        assert [s.label for s in row.scores] == [labels[i] for i in best]
        assert row.scores[0].score == pytest.approx(scores.max(), abs=1e-5)
    assert found[0].scores[0].label in str(found[0])

    path = tmp_path / "labelled.tflite"
    path.write_bytes(
        metadata.append_labels(tiny_float_file.read_bytes(), labels)
    )
    assert predict(path, tiny_pictures[0], top=2)[0].scores == found[0].scores
    plain = predict(tiny_float_file, tiny_pictures[0], top=99)[0].scores
    assert [s.label for s in plain] == [str(s.index) for s in plain]
    assert len(plain) == 7


def test_predict_a_path(tiny_float_file, tiny_pictures, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(tiny_pictures[0]).save(path)
    (found,) = predict(tiny_float_file, path)
    assert found.picture == str(path)
    assert found.scores == predict(tiny_float_file, tiny_pictures)[0].scores


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"top": 0}, "`top`"),
        ({"labels": ["a", "b"]}, "`labels`.*7 classes"),
        ({"labels": []}, "`labels`.*7 classes"),
        ({"pictures": []}, "`pictures` must hold"),
        ({"pictures": 3}, "`pictures` must be"),
        ({"pictures": np.zeros((32, 32, 3))}, "`pictures`.*uint8"),
        ({"pictures": np.zeros((32, 32), "uint8")}, "`pictures`.*uint8"),
    ],
)
def test_predict_bad_arguments(tiny_float_file, arguments, message):
    arguments = {"pictures": np.zeros((32, 32, 3), "uint8"), **arguments}
    with pytest.raises(ValueError, match=message):
        predict(tiny_float_file, **arguments)


def test_files_that_are_no_pictures(tiny_float_file, tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("no picture")
    with pytest.raises(ValueError, match="picture.*text.jpg"):
        predict(tiny_float_file, path)
    Image.new("RGB", (64, 64), "red").save(path)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ValueError, match="picture.*text.jpg"):
        load_picture(path)
    with pytest.raises(FileNotFoundError, match="none.png"):
        load_picture(tmp_path / "none.png")


RED = (255, 0, 0)


def draw(mode):
    """A red 6x4 picture of a mode, or mid-grey where there is no colour."""
    if mode == "I;16":
        return Image.fromarray(np.full((4, 6), 0x8000, "uint16"))
    if mode in ("L", "LA"):
        return Image.new("L", (6, 4), 128).convert(mode)
    return Image.new("RGB", (6, 4), RED).convert(mode)


@pytest.mark.parametrize(
    "mode, suffix",
    [
        ("RGB", "png"),
        ("RGBA", "png"),
        ("P", "png"),
        ("CMYK", "tif"),
        ("L", "png"),
        ("LA", "png"),
        ("I;16", "png"),
        ("P", "gif"),
    ],
)
def test_modes(tmp_path, mode, suffix):
    path = tmp_path / f"picture.{suffix}"
    draw(mode).save(path)
    wanted = (128, 128, 128) if mode in ("L", "LA", "I;16") else RED
    found = load_picture(path)
    assert found.dtype == np.uint8 and found.shape == (4, 6, 3)
    assert np.abs(found.astype(int) - wanted).max() <= 2


def test_transparent_parts_become_white(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGBA", (6, 4), (*RED, 0)).save(path)
    assert (load_picture(path) == 255).all()


def test_first_frame_of_an_animation(tmp_path):
    path = tmp_path / "picture.gif"
    frames = [Image.new("RGB", (6, 4), c) for c in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert (load_picture(path) == RED).all()


def test_exif_rotation(tmp_path):
    path = tmp_path / "picture.png"
    pixels = np.zeros((4, 6, 3), "uint8")
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(path, exif=exif)
    found = load_picture(path)
    assert found.shape == (6, 4, 3)
    assert (found[:, -1] == 255).all() and not found[:, :-1].any()


def test_fit_picture_covers_and_cuts_the_centre():
    wide = np.zeros((40, 120, 3), "uint8")
    wide[:, 40:80] = 255
    found = fit_picture(wide, 20, 20)
    assert found.shape == (20, 20, 3)
    assert (found[:, 1:-1] == 255).all()
    assert fit_picture(wide, 33, 17).shape == (33, 17, 3)
    assert fit_picture(wide[:1, :1], 33, 17).shape == (33, 17, 3)
