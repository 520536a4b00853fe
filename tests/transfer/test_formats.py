"""Files are known by their content; whatever is no checkpoint is named, with the remedy (promise 1)."""

import hashlib
import io
import json
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from transformer_jax import types
from transformer_jax.transfer import formats

from . import fakes

ARRAYS = {
    "blocks/0/norm1/scale": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.ones((3,), ml_dtypes.bfloat16),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 3), np.float16),
    "count": np.arange(5, dtype=np.int8),
    "flag": np.array([True, False]),
}


def _same(left, right):
    assert sorted(left) == sorted(right)
    for name in left:
        assert left[name].dtype == right[name].dtype and left[name].shape == right[name].shape, name
        assert left[name].tobytes() == right[name].tobytes(), name


@pytest.mark.parametrize("format", ["npz", "safetensors"])
def test_arrays_come_back_bit_for_bit_whatever_the_file_is_called(tmp_path, format):
    path = tmp_path / "weights.bin"
    if format == "npz":
        formats.write_npz(path, ARRAYS)
    else:
        formats.write_safetensors(path, ARRAYS, {})
    assert formats.sniff(path) == format
    stored = formats.read(path)
    assert stored.format == format
    _same(stored.arrays, ARRAYS)


def test_bfloat16_stored_as_void_is_recovered(tmp_path):
    np.savez(tmp_path / "x.npz", w=ARRAYS["half"])
    assert np.load(tmp_path / "x.npz")["w"].dtype == np.dtype("V2")  # what numpy makes of it
    assert formats.read(tmp_path / "x.npz").arrays["w"].dtype == ml_dtypes.bfloat16


def test_our_safetensors_is_read_by_the_library_and_the_other_way_round(tmp_path):
    plain = {name: array for name, array in ARRAYS.items() if array.dtype != ml_dtypes.bfloat16}
    formats.write_safetensors(tmp_path / "ours", plain, {})
    _same(safetensors.numpy.load_file(tmp_path / "ours"), plain)
    safetensors.numpy.save_file(plain, tmp_path / "theirs", {"note": "free text"})
    stored = formats.read(tmp_path / "theirs")
    _same(stored.arrays, plain)
    assert stored.meta == {"note": "free text"}


def test_safetensors_keeps_the_config_and_a_format_version(tmp_path):
    meta = {"config": {"model": {"variant": "Ti/16", "dropout": 0.0}}, "classes": ["cat", "dog"]}
    formats.write_safetensors(tmp_path / "x", ARRAYS, meta)
    assert formats.read(tmp_path / "x").meta == {"format": "transformer_jax", "format_version": 1, **meta}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.safetensors"
    formats.write_safetensors(path, {"a": np.ones(2)}, {})
    with pytest.raises(types.InputError, match=r"holds no complex128: 'a'"):
        formats.write_safetensors(path, {"a": np.ones(2, complex)}, {})
    assert formats.read(path).arrays["a"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_sha256_is_that_of_the_file(tmp_path):
    (tmp_path / "x").write_bytes(b"weights")
    assert formats.sha256(tmp_path / "x") == hashlib.sha256(b"weights").hexdigest()


def test_paths_may_be_relative_or_begin_with_a_tilde(tmp_path, monkeypatch):
    formats.write_npz(tmp_path / "x.npz", ARRAYS)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert formats.sniff("x.npz") == formats.sniff("~/x.npz") == "npz"
    assert formats.sniff(tmp_path) == "orbax"


def _npz():
    buffer = io.BytesIO()
    np.savez(buffer, **fakes.google())
    return buffer.getvalue()


def _zip(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return buffer.getvalue()


def _objects():
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([{"a": 1}], object))
    return buffer.getvalue()


def _damaged_inside():
    content = bytearray(_npz())
    content[len(content) // 2] ^= 1
    return bytes(content)


def _safetensors():
    return safetensors.numpy.save({"a": np.ones((4, 4), np.float32)})


GCS_403 = b"""<?xml version='1.0' encoding='UTF-8'?><Error><Code>AccessDenied</Code><Message>Access denied.</Message>
<Details>Anonymous caller does not have storage.objects.get access to the object.</Details></Error>"""
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 346293852\n"
WRONG = {
    "bucket 403": (GCS_403, r"is an XML error page .*\(AccessDenied: Access denied\)\. Its bucket wants a login"),
    "bucket 404": (b"<Error><Code>NoSuchKey</Code></Error>", r"XML error page .*\(NoSuchKey\)\. Check the address"),
    "html": (b"\n<!DOCTYPE html><html><title>Sign in</title>", r"is an HTML page \(Sign in\), not weights"),
    "json": (b'{"error": "Repository not found"}', r"JSON answer of a server .*: Repository not found\."),
    "lfs": (LFS, r"git-LFS pointer of a file of 346,293,852 bytes\. .* git lfs pull"),
    "torch zip": (_zip(archive__data_pkl=b"", archive__version=b"3"), r"PyTorch zip file.* safetensors\.torch"),
    "torch zip, cut": (_zip(archive__data_pkl=b"0" * 999)[:500], r"PyTorch zip file"),
    "pickle": (pickle.dumps({"model": 1}), r"PyTorch pickle file; unpickling runs code"),
    "npy": (b"\x93NUMPY\x01\x00", r"one \.npy array, without names"),
    "other zip": (_zip(readme_txt=b"hello"), r"zip archive of \['readme\.txt'\]"),
    "hdf5": (b"\x89HDF\r\n\x1a\n rest", r"is an HDF5 file \(Keras weights\)"),
    "gzip": (b"\x1f\x8b\x08\x00", r"is a gzip archive\. Unpack"),
    "empty": (b"", r"is empty \(0 bytes\)\. Fetch it again"),
    "noise": (b"\x01\x02\x03\x04", r"begins with the bytes 01 02 03 04 \(4 bytes\), which is none of them"),
    "npz, cut": (_npz()[:3000], r"truncated or damaged \(3,000 bytes\): a zip file without its directory"),
    "npz, flipped bit": (_damaged_inside(), r"truncated or damaged .*Bad CRC-32"),
    "npz of objects": (_objects(), r"holds pickled objects"),
    "npz of nothing": (_zip(), r"is an empty zip archive"),
    "safetensors, cut": (_safetensors()[:-5], r"truncated or damaged .* its header promises \d+ bytes"),
    "safetensors, cut early": (_safetensors()[:20], r"truncated or damaged .* its header of \d+ bytes is not complete"),
    "safetensors, longer": (_safetensors() + b"x", r"its header promises"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_checkpoint_is_named(tmp_path, kind):
    content, message = WRONG[kind]
    path = tmp_path / "B_16.npz"
    path.write_bytes(content)
    with pytest.raises(types.InputError, match=f"(?s)B_16.npz.*{message}"):
        formats.read(path)


def test_a_safetensors_of_unknown_types_or_shapes_is_refused(tmp_path):
    def write(entry):
        header = json.dumps({"a": entry}).encode()
        (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))

    write({"dtype": "F4", "shape": [16], "data_offsets": [0, 8]})
    with pytest.raises(types.InputError, match="'a' in .* is F4"):
        formats.read(tmp_path / "x")
    write({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]})
    with pytest.raises(types.InputError, match="'a' of shape .3. and type F32 cannot have 8 bytes"):
        formats.read(tmp_path / "x")


def test_a_missing_file_lists_what_lies_beside_it(tmp_path):
    (tmp_path / "B_16.npz").write_bytes(b"")
    with pytest.raises(types.InputError, match=r"nothing at '.*B_32.npz'; .* holds \['B_16.npz'\]"):
        formats.read(tmp_path / "B_32.npz")
    with pytest.raises(types.InputError, match="there is no '.*nowhere'"):
        formats.read(tmp_path / "nowhere" / "B_32.npz")


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("gs://vit_models/augreg/B_16.npz", "gcloud storage cp gs://vit_models/augreg/B_16.npz ."),
        ("https://example.org/x.npz", "curl -fLO https://example.org/x.npz"),
    ],
)
def test_an_address_is_answered_with_the_command_that_fetches_it(address, command):
    with pytest.raises(types.InputError) as error:
        formats.read(address)
    assert command in str(error.value)


def test_a_directory_is_not_read_as_a_file(tmp_path):
    with pytest.raises(types.InputError, match="is a directory"):
        formats.read(tmp_path)
