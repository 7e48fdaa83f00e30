"""Scripts beside tests, run in processes of their own: killed, or several together."""

import os
import socket
import subprocess
import sys


def run_job(script, *words, launcher=()):
    """Run a script that imports what the tests can, on one thread, and wait for it."""
    return subprocess.run(
        [sys.executable, *launcher, str(script), *map(str, words)],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def two_processes():
    """Return a launcher of two processes that form a group at a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    module = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    return [*module, "--master-addr", "127.0.0.1", "--master-port", port]
