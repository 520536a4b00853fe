import jax
import pytest

from transformer_jax import types
from transformer_jax.parallel import devices


@pytest.fixture
def fake_gpu(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H200'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(devices.jax, "default_backend", lambda: "cpu")


def test_running_on_the_cpu_beside_a_gpu_stops_with_the_command(fake_gpu, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    with monkeypatch.context() as context:
        context.setattr(type(jax.config), "jax_platforms", None, raising=False)
        with pytest.raises(types.InputError, match=r"lists 'NVIDIA H200' but JAX runs on the CPU.*\[cuda\]"):
            devices.check_backend()


def test_asking_for_the_cpu_is_believed(fake_gpu, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    devices.check_backend()


def test_a_machine_without_a_gpu_passes(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert devices.nvidia_gpus() == []
    devices.check_backend()
