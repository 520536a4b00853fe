"""Several processes come, miss each other, agree, disagree, and end with honest exit codes.

The roll call needs no JAX, so threads stand for its processes; all else is done by real ones on this machine.
"""

import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from transformer_jax import types
from transformer_jax.cli import main
from transformer_jax.parallel import detection, rollcall

LAUNCH = Path(__file__).parents[2] / "launch"

TOGETHER = """
    import sys
    import numpy as np
    from transformer_jax import types
    from transformer_jax.parallel import multihost

    multihost.start(timeout=60, heartbeat=20)
    index = multihost.index()
    assert (multihost.count(), multihost.main()) == (2, index == 0)
    import jax
    assert (jax.process_index(), jax.device_count(), jax.local_device_count()) == (index, 4, 2)

    first, second = multihost.gather({"x": np.arange(index + 2), "name": f"n{index}"})
    assert first["x"].tolist() == [0, 1] and second["x"].tolist() == [0, 1, 2] and second["name"] == "n1"
    sizes = [(len(part), float(part[0])) for part in multihost.gather(np.full(300_000 + index, index, np.float32))]
    assert sizes == [(300_000, 0.0), (300_001, 1.0)], sizes
    assert multihost.broadcast(index + 5) == 5

    from transformer_jax.parallel import connecting, mesh
    known = len(connecting._connected)  # devices of the same rank, of the same process, and all
    for shape in ({"data": 2, "fsdp": 2}, {"data": 4}, {"data": 2, "fsdp": 2}):
        connecting.connect(mesh.make(shape))
        assert len(connecting._connected) == known == 3
    multihost.barrier("here")
    try:
        multihost.barrier(f"place {index}")
    except RuntimeError as error:
        assert "process 0 at 'place 0', process 1 at 'place 1'" in str(error), error
    multihost.agree({"config": "a", "step": 3})
    try:
        multihost.agree({"config": "ab"[index], "step": 3})
    except types.InputError as error:
        assert "has 'a', process 1 (" in str(error) and "step:" not in str(error), error
        assert multihost.said_by_main(str(error)) == (index == 1)
    else:
        raise AssertionError("different facts were taken")
    if index == 0:
        try:
            multihost.barrier("only one comes", timeout=1.0)
        except multihost.PeerLost as error:
            assert "process 1 (" in str(error) and "of 2 did not within 1 s" in str(error), error
        else:
            raise AssertionError("nobody was missed")
    print("good", flush=True)
    multihost.stop(3, others=3, patience=20)
    sys.exit(3)
"""

ONE_FAILS = """
    import sys, time
    from transformer_jax.parallel import multihost

    multihost.start(timeout=60, heartbeat=60)
    if multihost.index() == 1:
        multihost.stop(2, others=4, patience=30)
        sys.exit(2)
    time.sleep(100)
"""


def run(tmp_path, code, *, count=2, devices=2, timeout=90):
    """The program as several processes; exit code, standard output, standard error."""
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(code))
    command = [LAUNCH / "processes.sh", str(count), str(devices), sys.executable, str(script)]
    environ = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(LAUNCH.parent)}
    found = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=timeout)
    return found.returncode, found.stdout, found.stderr


def test_two_processes_meet_agree_and_end_with_their_code(tmp_path):
    code, out, err = run(tmp_path, TOGETHER)
    assert code == 3 and out.count("good") == 2, err
    assert "[0] good" in out and "[1] good" in out


def test_a_process_that_fails_ends_the_others_within_seconds_and_keeps_its_code(tmp_path):
    begun = time.monotonic()
    code, _, err = run(tmp_path, ONE_FAILS)
    assert code == 2, err
    assert "[0] transformer-jax: process 1 (" in err and "ended with code 2" in err
    assert "Check failure" not in err  # nobody was aborted by JAX
    assert time.monotonic() - begun < 60


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def roll_call(told, *, timeout, known=()):
    """What each of the processes hears that were told these (count, index)s; what it raises, as it is."""
    address, heard = f"127.0.0.1:{free_port()}", [None] * len(told)

    def come(number, count, index):
        try:
            heard[number] = rollcall.hold(detection.Place(address, count, index), timeout, known=known)
        except (detection.PeerLost, types.InputError) as error:
            heard[number] = error

    threads = [threading.Thread(target=come, args=(number, *place)) for number, place in enumerate(told)]
    for thread in reversed(threads):  # process 0 comes last
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    return heard


def test_all_hear_the_hosts_of_all_and_the_port_is_free_again():
    assert roll_call([(3, 0), (3, 1), (3, 2)], timeout=20) == [[socket.gethostname()] * 3] * 3


def test_who_is_missing_is_named_to_all_and_the_wait_is_bounded():
    begun = time.monotonic()
    for error in roll_call([(4, 0), (4, 2)], timeout=1.0, known=["a", "b", "c", "d"]):
        assert isinstance(error, detection.PeerLost)
        assert "processes 1 and 3 of 4 (hosts b, d) did not come within 1 s. Start it with the address 127" in str(
            error
        )
    (error,) = roll_call([(2, 1)], timeout=0.5)
    assert isinstance(error, detection.PeerLost) and "process 0 of 2 at 127.0.0.1" in str(error)
    assert "was not reached within 0.5 s" in str(error)
    assert time.monotonic() - begun < 10


def test_who_came_and_went_is_missing():
    port, heard = free_port(), []

    def count():
        try:
            rollcall.hold(detection.Place(f"127.0.0.1:{port}", 3, 0), 2.0)
        except detection.PeerLost as error:
            heard.append(str(error))

    thread = threading.Thread(target=count)
    thread.start()
    time.sleep(0.2)
    for line in (b"GET / HTTP/1.1\n", b'{"mark": "transformer_jax", "index": 1, "count": 3, "host": "h", "id": "i"}\n'):
        with socket.create_connection(("127.0.0.1", port)) as caller:
            caller.sendall(line)
            time.sleep(0.1)
    thread.join()
    assert "processes 1 and 2 of 3 did not come within 2 s" in heard[0]


@pytest.mark.parametrize(
    "told, message",
    [
        ([(3, 0), (3, 1), (3, 1)], "Every process needs its own index: two say they are process 1, on "),
        ([(2, 0), (3, 1)], r"told the same number of them: process 0 .* was told 2, process 1 .* 3\."),
    ],
)
def test_processes_that_cannot_be_one_run_are_refused_at_once(told, message):
    begun = time.monotonic()
    for error in roll_call(told, timeout=60):
        with pytest.raises(types.InputError, match=message):
            raise error
    assert time.monotonic() - begun < 20


def test_a_peer_that_never_comes_ends_the_command_with_its_own_code(monkeypatch, capsys):
    monkeypatch.setenv("TRANSFORMER_JAX_WAIT", "0.5")
    where = f"127.0.0.1:{free_port()},3,1"
    assert main.main(["bench", "--config", "nothing.py", "--processes", where]) == 134
    assert "transformer-jax bench: Every process must be there: process 0 of 3" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["127.0.0.1:1,2", "somewhere"])
def test_a_mistake_in_the_address_is_a_usage_error(how, capsys):
    assert main.main(["bench", "--config", "nothing.py", "--processes", how]) == 2
    assert "must be auto, off, or HOST:PORT,COUNT,INDEX" in capsys.readouterr().err
