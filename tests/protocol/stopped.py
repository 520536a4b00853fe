"""The command line in a process that gets SIGTERM as soon as a file has a first line: `FILE ARGUMENT...`.

The file is watched from inside, so that a busy machine delays the run and its signal alike.
"""

import os
import pathlib
import signal
import sys
import threading
import time

from transformer_jax.cli import main


def stop_at(file: pathlib.Path) -> None:
    while not (file.exists() and file.stat().st_size):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=stop_at, args=(pathlib.Path(sys.argv[1]),), daemon=True).start()
    sys.exit(main.main(sys.argv[2:]))
