"""It learns, and it starts fast: what only whole runs show."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.experiment import small
from transformer_jax import experiment
from transformer_jax.training import checkpoint

PLAIN = {
    "model.dropout": "0.0",
    "model.stochastic_depth": "0.0",
    "train.mixup": "0.0",
    "train.cutmix": "0.0",
    "train.label_smoothing": "0.0",
    "train.average": "None",
    "data.preprocess": "value_range(-1, 1)",
}


@pytest.mark.slow
def test_a_tiny_vit_learns_32_images_by_heart(tmp_path):
    memorise = {
        "data.split": "train[:32]",
        "data.batch_size": "32",
        "evals.val.split": "train[:32]",
        "evals.val.batch_size": "32",
        "model.width": "32",
        "train.total": "300",
        "schedule.base": "0.005",
    }
    metrics = experiment.train(small.tiny(**PLAIN, **memorise), tmp_path, quiet=True, keep=False)
    assert metrics["val/top1"] == 1.0 and metrics["val/loss"] < 0.1


@pytest.mark.slow
def test_a_run_is_continued_unrolled_and_rematerialised_from_a_scanned_one(tmp_path):
    middle = {"checkpoint.every": "3", "checkpoint.keep_last": "2", **PLAIN}
    experiment.train(small.tiny(**middle), tmp_path / "scanned", quiet=True)
    shutil.copytree(tmp_path / "scanned", tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "checkpoints" / "6")
    other = {"model.scan": "false", "model.remat": "full"}
    experiment.train(small.tiny(**middle, **other), tmp_path / "other", quiet=True)
    expected, found = (checkpoint.load_params(tmp_path / name)[0] for name in ("scanned", "other"))
    for name, leaf in expected.items():
        np.testing.assert_allclose(found[name], leaf, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_second_process_finds_the_compiled_step(tmp_path):
    code = f"""
from tests.experiment import small
from transformer_jax import experiment
experiment.train(small.tiny(), {str(tmp_path)!r} + "/run" + __import__("sys").argv[1])
"""
    env_cache = {"TRANSFORMER_JAX_CACHE": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    said = []
    for name in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", code, name],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **env_cache},
            cwd=small.ROOT,
        )
        said.append(result.stdout)
    assert "(compile cache: miss)" in said[0] and "(compile cache: hit)" in said[1]
