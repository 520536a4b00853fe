"""Every test sees 8 virtual CPU devices, strict rank promotion, and no accelerator or network."""

import os
import shutil
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """One compile cache for the whole session, its subprocesses included; nothing is left in the user's."""
    folder = os.environ.get("TRANSFORMER_JAX_CACHE") or tempfile.mkdtemp(prefix="transformer_jax_tests_")
    os.environ["TRANSFORMER_JAX_CACHE"] = folder
    if not hasattr(config, "workerinput"):
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
