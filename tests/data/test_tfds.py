"""TFDS data sets are read from disk alone: no TensorFlow, no network, encoded images."""

import ast
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import transformer_jax.data
from transformer_jax import types
from transformer_jax.data import builders, pipeline, sources


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    builders.prepare("digits", folder)
    return str(folder)


@pytest.fixture
def no_network(monkeypatch):
    import socket

    def refuse(*arguments, **options):
        raise AssertionError("somebody went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_prepared_data_set_holds_what_the_embedded_one_holds(data_dir, no_network):
    stored, embedded = (
        sources.open_source(spec, "validation[:20]+test[-5:]", data_dir=data_dir) for spec in ("tfds:digits", "digits")
    )
    assert (len(stored), stored.num_classes, stored.class_names) == (25, 10, embedded.class_names)
    assert np.array_equal(stored.labels(), embedded.labels())
    batches = [
        next(pipeline.Train(source, "decode(1) | resize(8)", batch_size=25, seed=0).batches(0))
        for source in (stored, embedded)
    ]
    assert np.array_equal(batches[0]["image"], batches[1]["image"])
    assert stored[3]["image"].startswith(b"\x89PNG") and stored[3]["id"] == "tfds:digits validation[3]"


def test_tensorflow_is_not_imported_even_where_it_is_installed(data_dir, tmp_path):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise AssertionError('TensorFlow was imported')")
    code = (
        "import sys\n"
        "from transformer_jax.data import pipeline, sources\n"
        f"source = sources.open_source('tfds:digits', 'train[:10%]', data_dir={data_dir!r}, labels=20)\n"
        "pipe = pipeline.Train(source, 'decode(1) | resize(16) | shift(2)', batch_size=8, seed=0)\n"
        "stream = pipe.batches(0); next(stream); stream.close()\n"
        "assert sum(b['mask'].sum() for b in pipeline.Evaluate(source, 'decode', batch_size=8)) == 20\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    search = os.pathsep.join([str(tmp_path), *sys.path])
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env={**os.environ, "PYTHONPATH": search})


def test_no_file_of_the_data_row_imports_jax_or_tensorflow():
    for path in pathlib.Path(transformer_jax.data.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in names if n.split(".")[0] in ("jax", "jaxlib", "flax", "tensorflow")], path


@pytest.mark.parametrize("name", ["digits:1.0.0", "digits:1.*.*"])
def test_a_version_can_be_named(data_dir, name):
    assert len(sources.open_source(f"tfds:{name}", "test", data_dir=data_dir)) == 360


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("tfds:digits:2.*.*", {}, "not prepared under .*data prepare digits --data-dir"),
        ("tfds:cifar10", {}, "tfds build cifar10 --file_format=array_record"),
        ("tfds:digits", dict(split="dev"), "has the splits train, validation, test"),
        ("tfds:digits", dict(label_key="lable"), "Did you mean 'label'"),
        ("tfds:digits", dict(label_key="image", image_key="image"), "no ClassLabel. Set num_classes"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_the_remedy(data_dir, no_network, spec, options, message):
    with pytest.raises(types.InputError, match=message):
        sources.open_source(spec, data_dir=data_dir, **options)


def test_several_configurations_must_be_told_apart(tmp_path):
    for config in ("rgb", "all"):
        (tmp_path / "eurosat" / config / "2.0.0").mkdir(parents=True)
        (tmp_path / "eurosat" / config / "2.0.0" / "dataset_info.json").write_text("{}")
    with pytest.raises(types.InputError, match="all, rgb. Name one: tfds:eurosat/all"):
        sources.open_source("tfds:eurosat", data_dir=str(tmp_path))


def test_preflight_lists_everything_missing_with_its_command(data_dir, tmp_path, no_network):
    old = tmp_path / "mnist" / "3.0.1"
    old.mkdir(parents=True)
    (old / "dataset_info.json").write_text("{}")
    (old / "mnist-train.tfrecord-00000-of-00001").write_text("")
    problems = sources.missing(
        [
            "digits",
            {"source": "tfds:digits", "data_dir": data_dir},
            {"source": "tfds:digits", "data_dir": str(tmp_path)},
            {"source": "tfds:imagenet2012", "split": "train[:99%]", "data_dir": str(tmp_path)},
            {"source": "tfds:imagenet2012", "split": "validation", "data_dir": str(tmp_path)},
            {"source": "tfds:mnist", "data_dir": str(tmp_path)},
            f"folder:{tmp_path}/photos",
        ]
    )
    assert len(problems) == 4
    assert f"transformer-jax data prepare digits --data-dir {tmp_path}" in problems[0]
    assert "tfds build imagenet2012 --file_format=array_record" in problems[1]
    assert f"tfds convert_format --dataset_version_dir={old} --out_file_format=array_record" in problems[2]
    assert "PATH/train/CLASS/IMAGE" in problems[3]
