"""An audit that was killed and resumed writes the same page."""

import signal
from pathlib import Path

import pytest
from auditing_job import audit
from jobs import run_job

JOB = Path(__file__).with_name("auditing_job.py")


class Stop(BaseException):
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    passes = []
    page = audit(tmp_path_factory.mktemp("whole"), lambda: passes.append(1))
    return page, len(passes)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 0.95])
def test_interrupted_and_resumed(whole, tmp_path, share):
    page, passes = whole
    left, again = [int(share * passes)], []

    def spoil():
        left[0] -= 1
        if left[0] < 0:
            raise Stop

    with pytest.raises(Stop):
        audit(tmp_path, spoil)
    assert audit(tmp_path, lambda: again.append(1)) == page
    assert len(again) < passes - 0.5 * (share - 0.1) * passes


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_killed_and_resumed(whole, tmp_path, share):
    page, passes = whole
    done = run_job(JOB, tmp_path, int(share * passes))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "report.html").exists()
    # That process was without the shape checks of this one, which changes no explanation.
    again = []
    assert audit(tmp_path, lambda: again.append(1)) == page
    assert len(again) < passes * (1 - 0.5 * share)
