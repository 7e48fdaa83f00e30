"""Audit a network, and be killed at a given forward pass: run as a script with a folder."""

import os
import signal
import sys

from audits import images, network, quietly

from captum_blackbox.compare import progress
from captum_blackbox.fragility import curves_record

progress._LEAST_WORK = curves_record._LEAST_WORK = 0  # every batch is kept
METHODS = ["gradient", "grad-cam", "pattern-attribution", "rise"]


def audit(out, passed=lambda: None):
    """Return the page of an audit; ``passed`` is called before each pass of the network."""
    model = network()
    handle = model.register_forward_pre_hook(lambda *_: passed())
    try:
        found = quietly(
            model, images(4), out, methods=METHODS, data=images(40).inputs, batch_size=2
        )
    finally:
        handle.remove()
    return found.write(out).read_text()


def kill_after(passes):
    left = [passes]

    def passed():
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return passed


if __name__ == "__main__":
    audit(sys.argv[1], kill_after(int(sys.argv[2])))
