import re
import subprocess
import sys

import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.data import builders, digits, glyphs, ops, sources


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Both data sets, prepared in a process that then says whether TensorFlow was imported."""
    folder = tmp_path_factory.mktemp("tfds")
    code = f"""
import sys
from transformer_jax.data import builders
print(builders.prepare("digits", {str(folder)!r}))
print(builders.prepare("glyphs", {str(folder)!r}, size=300))
import tensorflow_datasets as tfds
print(len(tfds.data_source("digits", split="test", data_dir={str(folder)!r})))
print("tensorflow" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[-2:] == ["360", "False"]
    assert f"{folder}/digits/1.0.0" in lines and f"{folder}/glyphs/300_16px_seed0/1.0.0" in lines
    return folder


@pytest.mark.parametrize(
    ("name", "split", "expected"),
    [
        *[("digits", split, lambda split: digits.open(split)) for split in digits.SPLITS],
        *[("glyphs/300_16px_seed0", split, lambda split: glyphs.open(split, size=300)) for split in glyphs.SPLITS],
    ],
)
def test_files_on_disk_hold_the_examples_of_memory_in_the_same_order(data_dir, name, split, expected):
    import tensorflow_datasets as tfds

    on_disk = tfds.data_source(name, split=split, data_dir=data_dir)
    in_memory = expected(split)
    assert len(on_disk) == len(in_memory)
    indices = list(range(len(in_memory)))[:: max(1, len(in_memory) // 100)]
    for stored, index in zip(on_disk.__getitems__(indices), indices, strict=True):
        assert np.array_equal(stored["image"], in_memory[index]["image"])
        assert stored["label"] == in_memory[index]["label"]


def test_class_names_and_files_in_array_record(data_dir):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(data_dir / "digits" / "1.0.0")
    assert builder.info.features["label"].names == list(digits.CLASS_NAMES)
    assert builder.info.file_format.value == "array_record"


def test_preparing_twice_writes_nothing(data_dir):
    before = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*.array_record*")}
    builders.prepare("digits", data_dir)
    assert {path: path.stat().st_mtime_ns for path in data_dir.rglob("*.array_record*")} == before


def test_importing_the_table_imports_no_tfds():
    code = "import sys, transformer_jax.data.builders; print('tensorflow_datasets' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_an_unknown_data_set_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(types.InputError, match="are digits, glyphs. Not: 'digit'. Did you mean 'digits'"):
        builders.prepare("digit", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("glyphs", "'glyphs' does not take 'sise'. Did you mean 'size' or 'seed'? It takes: size, image_size, seed"),
        ("digits", "'digits' does not take 'sise'. It takes: no options"),
    ],
)
def test_an_unknown_option_is_an_input_error(tmp_path, name, message):
    with pytest.raises(types.InputError, match=re.escape(message)):
        builders.prepare(name, tmp_path, sise=3)


@pytest.mark.parametrize(
    ("spec", "split", "expected"),
    [
        ("tfds:digits", "train[:100]+test[-20:]", "digits"),
        ("tfds:glyphs/300_16px_seed0", "train[:20%]", "glyphs"),
    ],
)
def test_the_prepared_files_are_a_source_like_the_one_in_memory(data_dir, spec, split, expected):
    on_disk = sources.open_source(spec, split, data_dir=str(data_dir))
    in_memory = sources.open_source(expected, split, **({"size": 300} if expected == "glyphs" else {}))
    decode = ops.build("decode", 1)
    rng = np.random.default_rng(0)
    assert len(on_disk) == len(in_memory) and on_disk.class_names == in_memory.class_names
    for index in range(len(on_disk)):
        stored, example = on_disk[index], in_memory[index]
        assert np.array_equal(decode(stored, rng)["image"], example["image"])
        assert stored["label"] == example["label"]
