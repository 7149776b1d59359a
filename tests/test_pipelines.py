"""Pictures and labels as they reach the model, from all three sources."""

import os
import pathlib
import warnings

import numpy as np
import pytest
import tensorflow as tf
from coloured import COLOURS
from coloured import picture

from keras_mobilevit import data
from keras_mobilevit.data import folders


def fill(folder, count, names=COLOURS, start=0):
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(start, start + count):
            picture(COLOURS[name], noise=number).save(
                folder / name / f"{number}.png"
            )


@pytest.fixture
def split_folder(tmp_path):
    fill(tmp_path / "train", 6)
    fill(tmp_path / "val", 2, start=50)
    return tmp_path


def arrays(pipeline):
    batches = [(x.numpy(), y.numpy()) for x, y in pipeline]
    return [np.concatenate(part) for part in zip(*batches)]


def colour_of(image):
    order = {name: np.argmax(colour) for name, colour in COLOURS.items()}
    strongest = image.reshape(-1, 3).mean(axis=0).argmax()
    return sorted(COLOURS).index(
        next(name for name, channel in order.items() if channel == strongest)
    )


@pytest.mark.parametrize("part", ["train", "val", "calibration"])
def test_pictures_match_their_labels(split_folder, part):
    dataset = data.load_folder(split_folder, 32, 4)
    assert dataset.class_names == ("blue", "green", "red")
    assert (dataset.train_size, dataset.val_size) == (18, 6)
    images, labels = arrays(getattr(dataset, part))
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    assert images.shape[1:] == (32, 32, 3)
    # Training leaves an incomplete batch out, the others nothing.
    assert len(images) == {"train": 16, "val": 6, "calibration": 18}[part]
    assert [colour_of(image) for image in images] == list(labels)
    if part != "train":
        assert set(np.bincount(labels)) == {len(labels) // 3}


def test_two_loads_agree_and_epochs_differ(split_folder):
    def epochs(seed):
        dataset = data.load_folder(split_folder, 32, 4, seed=seed)
        return [arrays(dataset.train) for _ in range(2)], dataset

    (first, second), dataset = epochs(3)
    tf.random.set_seed(9)  # must not matter
    (again, _), _ = epochs(3)
    (other, _), _ = epochs(4)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[1] != second[1]).any()
    assert (first[1] != other[1]).any()
    # An endless pipeline that starts in an epoch gives the batches of it.
    steps = dataset.steps_per_epoch
    assert steps == 4
    found = arrays(dataset.train_from(0).take(2 * steps))
    np.testing.assert_array_equal(
        found[0], np.concatenate([first[0], second[0]])
    )
    found = arrays(dataset.train_from(1).take(steps))
    np.testing.assert_array_equal(found[0], second[0])
    np.testing.assert_array_equal(*(arrays(dataset.val)[0] for _ in "ab"))


def test_each_picture_comes_once_and_changes(split_folder):
    plain = data.load_folder(split_folder, 32, 6, augment=False)
    one, two = (arrays(plain.train)[0] for _ in "ab")
    assert {x.tobytes() for x in one} == {x.tobytes() for x in two}
    assert len({x.tobytes() for x in one}) == 18
    changed = arrays(data.load_folder(split_folder, 32, 6).train)[0]
    assert not {x.tobytes() for x in one} & {x.tobytes() for x in changed}


def test_split_by_fraction(tmp_path):
    fill(tmp_path, 10)
    parts = [
        data.load_folder(tmp_path, 32, 5, val_fraction=0.3, augment=False)
        for _ in "ab"
    ]
    assert (parts[0].train_size, parts[0].val_size) == (21, 9)
    images, labels = arrays(parts[0].val)
    assert list(np.bincount(labels)) == [3, 3, 3]
    np.testing.assert_array_equal(images, arrays(parts[1].val)[0])
    train = arrays(parts[0].calibration)[0]
    assert not {x.tobytes() for x in train} & {x.tobytes() for x in images}


def test_small_cache_gives_the_same(split_folder, monkeypatch):
    cached = data.load_folder(split_folder, 32, 4)
    monkeypatch.setattr(folders, "CACHE_BYTES", 5000)
    read = data.load_folder(split_folder, 32, 4)
    for part in ("train", "val"):
        np.testing.assert_array_equal(
            arrays(getattr(cached, part))[0], arrays(getattr(read, part))[0]
        )


def test_unreadable_files_are_named_once(split_folder):
    train = split_folder / "train"
    (train / "red" / "notes.txt").write_text("no picture")
    (train / "blue" / ".DS_Store").write_text("hidden")
    good = (train / "green" / "0.png").read_bytes()
    (train / "green" / "cut.png").write_bytes(good[: len(good) // 2])
    (split_folder / "val" / "red" / "empty.jpg").write_bytes(b"")
    with pytest.warns(UserWarning) as caught:
        dataset = data.load_folder(split_folder, 32, 4)
    assert len(caught) == 1
    text = str(caught[0].message)
    for name in ("red/notes.txt", "green/cut.png", "red/empty.jpg"):
        assert name in text.replace(os.sep, "/")
    assert "DS_Store" not in text and text.startswith("3 files")
    assert (dataset.train_size, dataset.val_size) == (18, 6)
    assert colour_of(arrays(dataset.val)[0][0]) == 0


def test_no_warning_without_reason(split_folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.load_folder(split_folder, 32, 4)


def no_class(folder):
    for name in COLOURS:
        for file in (folder / "train" / name).iterdir():
            file.unlink()
        (folder / "train" / name).rmdir()


def empty_class(folder):
    (folder / "train" / "pink").mkdir()


def only_bad(folder):
    for file in (folder / "val" / "red").iterdir():
        file.write_text("no picture")


def classes_differ(folder):
    (folder / "val" / "red").rename(folder / "val" / "pink")


def no_val(folder):
    (folder / "val").rename(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    "change, message",
    [
        (no_class, "at least two class folders.*none"),
        (empty_class, "empty: pink"),
        (classes_differ, "none in `train` for pink"),
        (no_val, "without `val`"),
    ],
)
def test_wrong_folders(tmp_path, change, message):
    root = tmp_path / "root"
    fill(root / "train", 2)
    fill(root / "val", 2)
    change(root)
    with pytest.raises(ValueError, match=message):
        data.load_folder(root, 32, 4)


def test_class_of_unreadable_files(split_folder):
    only_bad(split_folder)
    with pytest.warns(UserWarning, match="2 files"):
        with pytest.raises(ValueError, match="for val.*none in 'red'"):
            data.load_folder(split_folder, 32, 4)


def test_one_class_and_one_picture(tmp_path):
    fill(tmp_path, 1, ["red"])
    with pytest.raises(ValueError, match=r"at least two.*\['red'\]"):
        data.load_folder(tmp_path, 32, 4)
    fill(tmp_path, 3, ["blue"])
    with pytest.raises(ValueError, match="1 in 'red'"):
        data.load_folder(tmp_path, 32, 4)
    with pytest.raises(FileNotFoundError, match="not there"):
        data.load_folder(tmp_path / "nowhere", 32, 4)
    with pytest.raises(FileNotFoundError, match="a file"):
        data.load_folder(tmp_path / "red" / "0.png", 32, 4)


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, 3, ["red", "blue"])
    (tmp_path / "red").rename(tmp_path / "train")
    dataset = data.load_folder(tmp_path, 32, 4)
    assert dataset.class_names == ("blue", "train")
    assert dataset.batch_size == dataset.train_size == 4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"image_size": 0}, "`image_size`.*Received: image_size=0"),
        ({"batch_size": 2.5}, "`batch_size`"),
        ({"seed": -1}, "`seed`"),
        ({"crop_pct": 1.5}, "`crop_pct`"),
        ({"val_fraction": 1.0}, "`val_fraction`"),
        ({"augment": "yes"}, "`augment`"),
    ],
)
def test_wrong_arguments(split_folder, options, message):
    with pytest.raises(ValueError, match=message):
        data.load(data_dir=split_folder, **{"image_size": 32, **options})


def test_folder_evaluates_as_fit_picture(split_folder):
    for crop_pct in (1.0, 0.8):
        dataset = data.load_folder(split_folder, 32, 4, crop_pct=crop_pct)
        file = split_folder / "val" / "blue" / "50.png"
        expected = data.fit_picture(data.load_picture(file), 32, 32, crop_pct)
        np.testing.assert_array_equal(arrays(dataset.val)[0][0], expected)


def test_digits():
    pytest.importorskip("sklearn")
    dataset = data.load(image_size=48, batch_size=50)
    assert (dataset.train_size, dataset.val_size) == (1297, 500)
    images, labels = arrays(dataset.val)
    assert images.shape == (500, 48, 48, 3) and images.dtype == np.uint8
    assert (images == images[..., :1]).all()
    assert images.min() == 0 and images.max() == 255
    assert np.bincount(labels).min() > 40
    other = data.load("digits", image_size=48, batch_size=50, seed=5)
    np.testing.assert_array_equal(images, arrays(other.val)[0])
    with pytest.raises(ValueError, match="no `data_dir`"):
        data.load("digits", data_dir=".")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A data set as tfds keeps it, with a train split only."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("tfds")

    def examples():
        for number in range(20):
            for name, colour in sorted(COLOURS.items()):
                image = np.asarray(picture(colour, noise=number))
                yield f"{name}{number}", {"image": image, "label": name}

    builder = tfds.dataset_builders.store_as_tfds_dataset(
        name="colours",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=sorted(COLOURS)),
            }
        ),
        split_datasets={"train": list(examples())},
        data_dir=folder,
    )
    assert builder.is_prepared()
    return folder


def test_tfds(stored):
    dataset = data.load("colours", data_dir=stored, image_size=32, batch_size=8)
    assert dataset.class_names == ("blue", "green", "red")
    assert (dataset.train_size, dataset.val_size) == (48, 12)
    for part, count in (("train", 48), ("val", 12), ("calibration", 48)):
        images, labels = arrays(getattr(dataset, part))
        assert images.shape == (count, 32, 32, 3) and images.dtype == np.uint8
        assert [colour_of(image) for image in images] == list(labels)
    first = arrays(dataset.train_from(0).take(12))[0]
    tf.random.set_seed(9)  # must not matter
    again = arrays(dataset.train_from(0).take(12))[0]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(
        first[48:], arrays(dataset.train_from(1).take(6))[0]
    )
    assert (first[:48] != first[48:]).any()
    plain = data.load_tfds(
        "colours", 32, 8, data_dir=stored, augment=False, seed=1
    )
    one, two = (arrays(plain.train)[0] for _ in "ab")
    assert [x.tobytes() for x in one] != [x.tobytes() for x in two]
    assert {x.tobytes() for x in one} == {x.tobytes() for x in two}


def test_tfds_without_the_data(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError, match="--download.*'tf_flowers'"):
        data.load("tf_flowers", data_dir=tmp_path)
    with pytest.raises(ValueError, match="'digits' or a name") as caught:
        data.load("no_such_data_set", data_dir=tmp_path)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "name, sizes", [("sign_digits", (1300, 300)), ("tf_flowers", (900, 250))]
)
def test_real_pictures(name, sizes):
    default = pathlib.Path(__file__).parents[1].parent / "shared" / "data"
    root = os.environ.get("KERAS_MOBILEVIT_DATA", default)
    folder = pathlib.Path(root) / name
    if not folder.is_dir():
        pytest.skip(f"needs the data set {name} (KERAS_MOBILEVIT_DATA)")
    dataset = data.load_folder(folder, 64)
    assert (dataset.train_size, dataset.val_size) == sizes
    labels = np.concatenate([y for _, y in dataset.val])
    assert len(set(np.bincount(labels))) == 1
    images, _ = next(iter(dataset.train))
    assert 60 < images.numpy().mean() < 200
