"""What the processes of a run must have in common, checked before they wait for each other on the devices."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from transformer_jax import config
from transformer_jax.data import pipeline
from transformer_jax.parallel import multihost
from transformer_jax.training import provenance

# Where a process finds its data and how it reads them are its own.
_OWN = ("threads", "workers", "data_dir")


def require(
    settings: Mapping[str, Any], data: pipeline.Train | None = None, steps: Sequence[int] = (), **more: str
) -> None:
    """`InputError` on every process unless all have the same experiment, code, devices, data and checkpoints.

    The message names the process that is odd, and the very setting. `steps` are the ones saved, newest first.
    """
    if multihost.count() == 1:
        return
    facts: dict[str, str | int] = {
        f"config.{name}": repr(value)
        for name, value in config.dotted(config.plain(settings)).items()
        if name.rpartition(".")[2] not in _OWN
    }
    facts["code of transformer_jax"] = provenance.git_commit() or importlib.metadata.version("transformer-jax")
    facts["version of jax"] = jax.__version__
    facts["devices"] = f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}"
    if data is not None:
        facts |= {"examples of the training data": data.num_examples, "training data": str(data.fingerprint)}
        facts["step of the newest checkpoint"] = steps[0] if steps else "none"
    multihost.agree({**facts, **more})
