"""What importing the library costs beside importing torch and Captum."""

import resource
import subprocess
import sys

from harness import Contestant, arguments, race, result, save

FLOOR = "import torch, captum"
IMPORTS = {
    "import captum_blackbox": 1.2,
    "import captum_blackbox; captum_blackbox.LayerSumGradCAM": 1.2,
}


def fresh(code: str) -> Contestant:
    """Return a contestant that runs ``code`` in an interpreter of its own."""
    return Contestant(
        code,
        lambda: subprocess.run([sys.executable, "-c", code], check=True),
        goal=IMPORTS.get(code),
        ours=code != FLOOR,
    )


def seconds_of_children(call) -> float:
    """Return the CPU time of the processes that ``call`` starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    given = arguments(__doc__, rounds=7).parse_args()
    row = race(
        "import",
        fresh(FLOOR),
        [fresh(code) for code in IMPORTS],
        rounds=given.rounds,
        device="cpu",
        clock=seconds_of_children,
    )
    content = result("importing", "cpu", [row], given.rounds)
    print(save("importing", "cpu", content | {"clock": "CPU time of a fresh interpreter"}))


if __name__ == "__main__":
    main()
