"""Batches of several processes make one global array, on two real processes of this machine."""

import socket
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
    import sys

    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]), initialization_timeout=60)

    import numpy as np

    from transformer_jax import types
    from transformer_jax.parallel import mesh, strategies

    strategy = strategies.Jit(mesh.make({"data": 2, "fsdp": -1}))
    own = np.arange(4.0, dtype=np.float32) + 4 * jax.process_index()
    inputs = (strategy.batch, strategy.replicated)
    weigh = strategy.compile(lambda batch, scale: scale * batch["x"], inputs=inputs, outputs=strategy.replicated)
    batch = strategy.put({"x": own})
    assert batch["x"].shape == (8,), batch["x"].shape
    np.testing.assert_array_equal(weigh(batch, strategy.scalar(0.5)), np.arange(8) / 2)
    try:
        strategy.put({"x": own[:3]})
    except types.InputError as error:
        assert "6 examples over 4 of them" in str(error), error
    else:
        raise AssertionError("an uneven batch was taken")
    print("good", flush=True)
"""


@pytest.mark.slow
def test_each_process_gives_its_part_of_the_batch():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), address]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(index)], **pipes) for index in range(2)]
    try:
        for process in processes:
            out, err = process.communicate(timeout=200)
            assert process.returncode == 0 and out.endswith("good\n"), err
    finally:
        for process in processes:
            process.kill()
