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
    """One compile cache for the whole session, its subprocesses included; nothing is left in the user's.

    The fast tests compile for minutes what runs for seconds: they go without LLVM's optimisations, with the same passes
    of XLA before them. The slow ones compile as users do.
    """
    if "not slow" in config.option.markexpr:
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    folder = os.environ.get("TRANSFORMER_JAX_CACHE") or tempfile.mkdtemp(prefix="transformer_jax_tests_")
    os.environ["TRANSFORMER_JAX_CACHE"] = folder
    if not hasattr(config, "workerinput"):
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_finish(session):
    """What tests compile is kept for the others too, as training keeps it: many of them compile the same."""
    if session.items and not session.config.option.collectonly:
        from transformer_jax.training import compilation

        compilation.enable_cache(os.environ["TRANSFORMER_JAX_CACHE"])
