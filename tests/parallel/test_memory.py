"""The optimizer's state waits where a device can reach it, or the error says what else helps."""

import types as python

import pytest

from transformer_jax import types
from transformer_jax.parallel import memory


class Sharding:
    def __init__(self, *kinds):
        spaces = [python.SimpleNamespace(kind=kind) for kind in kinds]
        device = python.SimpleNamespace(device_kind="TPU v9", addressable_memories=lambda: spaces)
        self.device_set = [device]


def test_a_device_without_the_hosts_memory_says_what_else_saves():
    with pytest.raises(types.InputError, match="reaches pinned_host memory: TPU v9 has device. .*offload='none'"):
        memory.on_host({"mu": Sharding("device")})
