"""The nineteen tasks of VTAB and the multi-label ReaL are read from the features TFDS stores, without TensorFlow."""

import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds

from transformer_jax import types
from transformer_jax.data import pipeline, sources, vtab_labels

from . import prepared

F = tfds.features
KITTI_TYPES = ["Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc"]

# Just below, on and just above the edges: the nearest float32 numbers. CLEVR's camera sees no object beyond 100.
EDGES = {"clevr": [8.0, 8.5, 9.0, 9.5, 10.0], "kitti": [8.0, 20.0]}


def _around(edges):
    edges = np.asarray(edges, np.float32)
    return np.concatenate([np.nextafter(edges, np.float32(0)), edges, np.nextafter(edges, np.float32(1e4))])


def _clevr():
    """Objects nearer than the first one of each example would change the label, so the others are farther."""
    closest = [*_around(EDGES["clevr"]), np.float32(5), np.float32(99)]
    counts = [3 + i % 8 for i in range(len(closest))]
    features = {
        "image": F.Image(),
        "file_name": F.Text(),
        "objects": F.Sequence(
            {
                "size": F.ClassLabel(names=["small", "large"]),
                "rotation": F.Tensor(shape=(), dtype=np.float32),
                "pixel_coords": F.Tensor(shape=(3,), dtype=np.float32),
            }
        ),
        "question_answer": F.Sequence({"question": F.Text(), "answer": F.Text()}),
    }
    examples = [
        {
            "image": prepared.png(prepared.grey((4, 6, 3))),
            "file_name": f"CLEVR_{i}.png",
            "objects": [
                {"size": k % 2, "rotation": 1.0, "pixel_coords": [-1.0, -2.0, z + np.float32(k * 0.1)]}
                for k in reversed(range(count))
            ],
            "question_answer": [{"question": "how many?", "answer": str(count)}] * (i % 2),
        }
        for i, (z, count) in enumerate(zip(closest, counts, strict=True))
    ]
    return features, examples, {"closest": np.array(closest, np.float32), "count": np.array(counts)}


def _kitti():
    nearest = [*_around(EDGES["kitti"]), np.float32(-2), np.float32(100), np.inf]
    features = {
        "image": F.Image(),
        "image/file_name": F.Text(),
        "objects": F.Sequence(
            {
                "type": F.ClassLabel(names=KITTI_TYPES),
                "bbox": F.BBoxFeature(),
                "location": F.Tensor(shape=(3,), dtype=np.float32),
            }
        ),
    }
    box = F.BBox(0.1, 0.1, 0.2, 0.2)
    near = {"type": "Pedestrian", "bbox": box, "location": [0.0, 0.0, 1.0]}
    examples = [
        {
            "image": prepared.png(prepared.grey((4, 6, 3))),
            "image/file_name": f"{i}.png",
            "objects": [near]
            + [
                {"type": kind, "bbox": box, "location": [-9.0, 3.0, z + np.float32(k)]}
                for k, kind in enumerate(("Truck", "Van", "Car"))
                if np.isfinite(z)
            ],
        }
        for i, z in enumerate(nearest)
    ]
    examples[-1]["objects"] = []  # nothing on the road at all
    examples.append({**examples[0], "image": prepared.png(prepared.grey()), "objects": [near]})  # nobody but a walker
    return features, examples, {"nearest": np.array([*nearest, np.inf], np.float32)}


def _dsprites():
    features = {
        "image": F.Image(shape=(8, 8, 1)),
        "label_orientation": F.ClassLabel(num_classes=40),
        "label_x_position": F.ClassLabel(num_classes=32),
        "value_x_position": F.Tensor(shape=[], dtype=np.float32),
    }
    examples = []
    for i in range(40):
        image = np.zeros((8, 8, 1), np.uint8)
        image[i % 8] = 1
        labels = {"label_orientation": i, "label_x_position": i % 32, "value_x_position": 0.5}
        examples.append({"image": prepared.png(image), **labels})
    return features, examples, {"orientation": np.arange(40), "x": np.arange(40) % 32}


def _smallnorb():
    features = {
        "image": F.Image(shape=(4, 4, 1)),
        "image2": F.Image(shape=(4, 4, 1)),
        "label_category": F.ClassLabel(num_classes=5),
        "label_elevation": F.ClassLabel(num_classes=9),
        "label_azimuth": F.ClassLabel(num_classes=18),
    }
    examples = [
        {
            "image": prepared.png(prepared.grey(level=i)),
            "image2": prepared.png(prepared.grey(level=99)),
            "label_category": i % 5,
            "label_elevation": i % 9,
            "label_azimuth": i,
        }
        for i in range(18)
    ]
    return features, examples, {"elevation": np.arange(18) % 9, "azimuth": np.arange(18)}


DATA = {"clevr": _clevr, "kitti": _kitti, "dsprites": _dsprites, "smallnorb": _smallnorb}


def _bins(values, edges):
    """How many edges lie below, less one: counted, not searched."""
    return (np.asarray(edges, np.float32) < values[:, None]).sum(1) - 1


EXPECTED = {
    "clevr_count_all": lambda told: told["count"] - 3,
    "clevr_closest_object_distance": lambda told: _bins(told["closest"], [0, 8, 8.5, 9, 9.5, 10, 100]),
    "kitti_closest_vehicle_distance": lambda told: _bins(np.minimum(told["nearest"], 1000), [-100, 8, 20, 999]),
    "dsprites_label_x_position": lambda told: told["x"] // 2,
    "dsprites_label_orientation": lambda told: told["orientation"] * 2 // 5,
    "smallnorb_label_azimuth": lambda told: told["azimuth"],
    "smallnorb_label_elevation": lambda told: told["elevation"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vtab")
    told = {}
    for name, make in DATA.items():
        features, examples, told[name] = make()
        prepared.write(folder, name, features, {"train": examples}, version="3.1.0")
    return str(folder), told


def test_every_label_function_is_expected_of_something():
    assert EXPECTED.keys() == vtab_labels.LABELS.keys()


@pytest.mark.parametrize("function", EXPECTED)
def test_a_label_is_that_of_the_published_definition_at_the_edges_of_the_bins_too(data, function):
    folder, told = data
    name = vtab_labels.LABELS[function].data_set
    source = sources.open_source(f"tfds:{name}:3.*.*", data_dir=folder, label_function=function)
    expected = EXPECTED[function](told[name])
    assert np.array_equal(source.labels(), expected)
    assert [example["label"] for example in source.__getitems__(range(len(source)))] == expected.tolist()
    assert set(expected.tolist()) == set(range(source.num_classes)), "every class occurs"
    assert len(set(source.class_names)) == source.num_classes
    assert pickle.loads(pickle.dumps(source))[1]["label"] == expected[1]


@pytest.mark.parametrize(
    ("function", "classes"),
    [
        ("clevr_count_all", 8), ("clevr_closest_object_distance", 6), ("kitti_closest_vehicle_distance", 4),
        ("dsprites_label_x_position", 16), ("dsprites_label_orientation", 16), ("smallnorb_label_azimuth", 18),
        ("smallnorb_label_elevation", 9),
    ],
)  # fmt: skip
def test_the_numbers_of_classes_are_those_of_the_protocol(function, classes):
    assert len(vtab_labels.LABELS[function].class_names) == classes


def test_class_names_say_what_is_in_the_bin():
    names = {name: row.class_names for name, row in vtab_labels.LABELS.items()}
    assert names["clevr_count_all"][:2] == ("3 objects", "4 objects")
    assert names["clevr_closest_object_distance"][1] == "8 to 8.5"
    assert names["kitti_closest_vehicle_distance"] == ("-100 to 8 m", "8 to 20 m", "20 to 999 m", "no vehicle")
    assert names["dsprites_label_orientation"][:3] == ("0 to 2", "3 to 4", "5 to 7")
    assert names["smallnorb_label_azimuth"][-1] == "340 degrees"
    assert names["smallnorb_label_elevation"][-1] == "70 degrees"


def test_images_of_zeros_and_ones_are_shown_black_and_white(data):
    folder, _ = data
    source = sources.open_source("tfds:dsprites", data_dir=folder, label_function="dsprites_label_x_position")
    image = source[3]["image"]
    assert image.shape == (8, 8, 1) and image.dtype == np.uint8
    assert (image[3] == 255).all() and image.sum() == 8 * 255
    batch = next(pipeline.Train(source, "decode | resize(6)", batch_size=4, seed=0).batches(0))
    assert batch["image"].shape == (4, 6, 6, 3)


def test_fingerprints_tell_the_tasks_of_a_data_set_apart(data):
    folder, _ = data
    functions = [name for name, row in vtab_labels.LABELS.items() if row.data_set == "clevr"]
    found = {sources.open_source("tfds:clevr", data_dir=folder, label_function=f).fingerprint for f in functions}
    assert len(found) == 2


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("clevr", {"label_function": "clevr_count"}, "label_function is one of .*Did you mean 'clevr_count_all'"),
        (
            "kitti",
            {"label_function": "clevr_count_all"},
            "reads the feature objects/size of tfds:clevr. tfds:kitti has",
        ),
        ("clevr", {"label_function": "dsprites_label_x_position"}, "reads the feature label_x_position of tfds:dspr"),
        ("clevr", {"label_function": "clevr_count_all", "num_classes": 11}, "makes 8 classes. Leave num_classes out"),
        ("clevr", {}, "no feature 'label'.* It has: .*objects"),
        ("smallnorb", {"label_key": "label_azimut"}, "Did you mean 'label_azimuth'"),
    ],
)
def test_what_does_not_fit_is_an_error_with_the_remedy(data, spec, options, message):
    with pytest.raises(types.InputError, match=message):
        sources.open_source(f"tfds:{spec}", data_dir=data[0], **options)


def test_a_label_out_of_range_says_that_these_are_other_features(tmp_path):
    features, examples, _ = _clevr()
    prepared.write(tmp_path, "clevr", features, {"train": [{**examples[0], "objects": []}]})
    for function in ("clevr_count_all", "clevr_closest_object_distance"):
        source = sources.open_source("tfds:clevr", data_dir=str(tmp_path), label_function=function)
        with pytest.raises(types.InputError, match="makes labels in 0..[57], here (-3|6)"):
            source[0]


# The twelve tasks that read `image` and `label` as they are: the features beside them, as the builders declare them.
PLAIN = {
    "caltech101:3.*.*": ("3.0.2", {"image/file_name": F.Text()}),
    "cifar100:3.*.*": ("3.0.2", {"coarse_label": F.ClassLabel(num_classes=20), "id": F.Text()}),
    "dtd:3.*.*": ("3.0.1", {"file_name": F.Text()}),
    "oxford_flowers102:2.*.*": ("2.1.1", {"file_name": F.Text()}),
    "oxford_iiit_pet:3.*.*": ("3.2.0", {"file_name": F.Text(), "species": F.ClassLabel(names=["Cat", "Dog"])}),
    "sun397/tfds:4.*.*": ("4.0.0", {"file_name": F.Text()}),
    "svhn_cropped:3.*.*": ("3.1.0", {"id": F.Text()}),
    "patch_camelyon:2.*.*": ("2.0.0", {"id": F.Text()}),
    "eurosat/rgb:2.*.*": ("2.0.0", {"filename": F.Text()}),
    "resisc45:3.*.*": ("3.0.0", {"filename": F.Text()}),
    "diabetic_retinopathy_detection/btgraham-300:3.*.*": ("3.0.0", {"name": F.Text()}),
    "dmlab:2.0.1": ("2.0.1", {"filename": F.Text()}),
}


@pytest.mark.parametrize("spec", PLAIN)
def test_the_other_tasks_read_image_and_label_of_the_version_that_fits(tmp_path, spec):
    version, beside = PLAIN[spec]
    path, _, _ = spec.partition(":")
    name, _, config = path.partition("/")
    features = {"image": F.Image(shape=(None, None, 3)), "label": F.ClassLabel(num_classes=5), **beside}
    extra = {key: 0 if isinstance(feature, F.ClassLabel) else f"a {key}" for key, feature in beside.items()}
    for number in ("1.9.9", version, "9.0.0"):
        example = {"image": prepared.png(prepared.grey((4, 6, 3))), "label": 4, **extra}
        prepared.write(tmp_path, name, features, {"train": [example]}, version=number, config=config or None)
    source = sources.open_source(f"tfds:{spec}", data_dir=str(tmp_path))
    assert source.fingerprint.split(":")[1].endswith(version) and source[0]["label"] == 4
    assert ("file_name" in beside) == ("a file_name" in source[0]["id"])
