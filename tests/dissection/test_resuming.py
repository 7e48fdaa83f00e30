"""A dissection that was killed goes on and ends with the same bits."""

import json
import shutil
import signal
import warnings
from pathlib import Path

import dissecting_job as job
import pytest
import torch
from jobs import run_job
from planted_units import assert_same_result
from torch import nn

from captum_blackbox.artifacts import load_artifact
from captum_blackbox.dissection.active_cells import ActiveCells
from captum_blackbox.dissection.broken import Broken
from captum_blackbox.dissection.cell_store import CellStore
from captum_blackbox.dissection.checkpoint import Checkpoint
from captum_blackbox.errors import ArtifactError, ExplanationWarning

# 22 images in 11 batches of 2, written after every second one: at 13 and 12 images are in.
KILLED = {"activations": ("image", 13), "concepts": ("annotations", 13)}


@pytest.fixture(scope="module", params=KILLED)
def killed(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    what, number = KILLED[request.param]
    done = run_job(job.__file__, folder, what, number)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    return request.param, folder / "checkpoint"


@pytest.fixture
def stopped(killed, tmp_path):
    """The phase in which a run was killed, and its checkpoint, to be used up."""
    phase, folder = killed
    return phase, Path(shutil.copytree(folder, tmp_path / "checkpoint"))


@pytest.fixture(scope="module")
def whole():
    return job.dissect(job.Counted())


def assert_same(found, expected):
    assert list(found) == list(expected)
    for layer, result in found.items():
        assert_same_result(result, expected[layer])


def test_it_ends_with_the_same_bits_and_reads_nothing_again(stopped, whole):
    phase, folder = stopped
    concepts = job.Counted()
    assert_same(job.dissect(concepts, folder), whole)
    first, again = concepts.read["image"][0], concepts.read["image"][1:]
    assert first == 0  # for the sizes of maps
    if phase == "activations":
        assert again[:10] == list(range(12, 22))
        assert concepts.read["annotations"] == list(range(22))
        dense = again[10:]
    else:
        assert concepts.read["annotations"] == list(range(12, 22))
        dense = again
    # What is run again in the second phase is what its cells were too many of to be kept.
    fresh = job.Counted()
    job.dissect(fresh)
    expected = [n for n in fresh.read["image"][23:] if phase == "activations" or n >= 12]
    assert dense == expected
    assert not folder.exists()


def test_cells_are_kept_and_not_all_of_them():
    """The test above is about both kinds of batches."""
    fresh = job.Counted()
    job.dissect(fresh)
    again = fresh.read["image"][23:]
    assert 0 < len(again) < 22
    assert fresh.read["image"][:23] == [0, *range(22)]


def test_memory_may_differ_when_it_goes_on(stopped, whole):
    _, folder = stopped
    assert_same(job.dissect(job.Counted(), folder, memory_limit=20000), whole)


def changed_network():
    model = job.network()
    model[2].bias.data[0] += 1e-9
    return model


class OtherData(job.Counted):
    def digest(self):
        return "other"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda: {"model": changed_network()}, "model is '"),
        (lambda: {"concepts": OtherData()}, "data is '"),
        (lambda: {"batch_size": 3}, "batch_size is 2 in the file, 3 here"),
        (lambda: {"quantile": 0.1}, "quantile is 0.02 in the file, 0.1 here"),
        (lambda: {"level": 0.9}, "level is None in the file, 0.9 here"),
        (lambda: {"upsample": "receptive_field"}, "upsample is 'resize' in the file"),
        (lambda: {"presence": "mask"}, "presence is 'image' in the file"),
        (lambda: {"iou_threshold": 0.1}, "iou_threshold is 0.04 in the file"),
        (lambda: {"top_images": 3}, "top_images is 10 in the file"),
        (lambda: {"preprocess": lambda images: images / 2}, "inputs is '"),
    ],
)
def test_another_run_is_refused_and_what_differs_is_named(stopped, change, named):
    _, folder = stopped
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    arguments = {"concepts": job.Counted(), **change()}
    if "upsample" in arguments:
        arguments["model"] = nn.Sequential(*job.network())
    with pytest.raises(ArtifactError, match=f"does not belong here: .*{named}"):
        job.dissect(checkpoint=folder, **arguments)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_another_method_for_thresholds_is_refused(stopped):
    _, folder = stopped
    with pytest.raises(ArtifactError, match="threshold_method is 'exact' in the file"):
        job.dissect(job.Counted(), folder, threshold_method="sketch")


def test_the_files_of_others_are_left_alone(stopped, whole):
    _, folder = stopped
    own = [folder / "notes.txt", folder / "weights.safetensors", folder / "below" / "cells.txt"]
    own[2].parent.mkdir()
    for path in own:
        path.write_text("mine")
    assert_same(job.dissect(job.Counted(), folder), whole)
    assert sorted(folder.rglob("*")) == sorted([*own, own[2].parent])
    assert [path.read_text() for path in own] == ["mine"] * 3


def test_a_folder_with_the_name_of_a_share_is_a_folder_like_others(tmp_path, whole):
    folder = tmp_path / "above" / "1-of-2"
    assert_same(job.dissect(job.Counted(), folder), whole)
    assert list(tmp_path.rglob("*")) == [tmp_path / "above"]


def test_a_run_without_interruption_leaves_nothing(tmp_path, whole):
    assert_same(job.dissect(job.Counted(), tmp_path / "a" / "b"), whole)
    assert not (tmp_path / "a" / "b").exists()


def test_cells_that_were_written_before_the_rest_do_not_count(stopped, whole):
    """Killed between two files: cells of batches that are to be read again."""
    phase, folder = stopped
    if phase != "activations":
        return
    last = max(folder.glob("cells-*"))
    assert load_artifact(last)[0]
    # As if the activations had not been written for the last time.
    earlier = folder.parent / "earlier"

    class Stops(job.Counted):
        def image(self, index):
            if index == 9:
                raise KeyboardInterrupt
            return super().image(index)

    with pytest.raises(KeyboardInterrupt):
        job.dissect(Stops(), earlier)
    shutil.copy(last, earlier)
    concepts = job.Counted()
    assert_same(job.dissect(concepts, earlier), whole)
    assert concepts.read["image"][1:15] == list(range(8, 22))


def test_an_error_keeps_what_was_gathered(tmp_path, whole):
    class Fails(job.Counted):
        def annotations(self, index):
            if index == 17:
                raise OSError("the disk is gone")
            return super().annotations(index)

    with pytest.raises(OSError, match="the disk is gone"):
        job.dissect(Fails(), tmp_path / "run")
    concepts = job.Counted()
    assert_same(job.dissect(concepts, tmp_path / "run"), whole)
    assert concepts.read["annotations"] == list(range(16, 22))


@pytest.mark.parametrize("stop", [("image", 17), ("annotations", 17)])
def test_what_was_broken_is_known_after_a_stop(tmp_path, stop):
    broken = (("image", 3), ("annotations", 5))

    class Stops(job.Counted):
        def _note(self, what, number):
            if (what, number) == stop:
                raise KeyboardInterrupt
            super()._note(what, number)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExplanationWarning)
        with pytest.raises(KeyboardInterrupt):
            job.dissect(Stops(broken=broken), tmp_path / "run")
        expected = job.dissect(job.Counted(broken=broken))
        concepts = job.Counted(broken=broken)
        resumed = job.dissect(concepts, tmp_path / "run")
    assert_same(resumed, expected)
    assert resumed["0"].skipped == (
        "image 3: '3.jpg' is cut off",
        "image 5: '5.png' is cut off",
    )
    assert 3 not in concepts.read["image"]


def test_a_file_that_is_cut_off_is_named(stopped):
    _, folder = stopped
    path = folder / "activations.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="activations.safetensors"):
        job.dissect(job.Counted(), folder)


def test_a_header_is_json(tmp_path):
    checkpoint = Checkpoint(tmp_path / "run", {"sizes": (1, 2)}, 1, (0, 1))
    checkpoint.save_activations([], Broken(3), 1)
    _, header = load_artifact(tmp_path / "run" / "activations.safetensors")
    assert header == json.loads(json.dumps({"sizes": [1, 2], "process": [0, 1]}))
    assert checkpoint.resume_activations([], Broken(3)) == 1


def test_broken_images_merge_with_their_reasons():
    one, two = Broken(5), Broken(5)
    with pytest.warns(ExplanationWarning, match="^left out: 'é.jpg' is cut off$"):
        one.update({3: "'é.jpg' is cut off"})
    with pytest.warns(ExplanationWarning):
        two.update({1: "'b.jpg' is missing"})
    taken = one.empty()
    taken.load_state(two.state())
    one.merge(taken)
    assert one.flags.tolist() == [0, 1, 0, 1, 0]
    assert one.messages() == ("image 1: 'b.jpg' is missing", "image 3: 'é.jpg' is cut off")
    one.load_state(Broken(5).state())
    assert (one.numbers(), one.flags.any().item()) == ([], False)


def test_cells_that_lie_in_two_files_take_room_once():
    """As they do where a run went on with other moments of writing."""
    bound = torch.tensor([0.5])
    cells = ActiveCells.above(bound, torch.ones(1, 1, 5, 5))
    room = 2 * sum(each.numel() * each.element_size() for each in cells.tensors())
    store, resumed = CellStore(room), CellStore(room)
    store.keep(0, cells, 10**6, lambda: bound)
    written = store.unsaved()
    for _ in range(2):
        resumed.load(written, 1, bound)
    resumed.keep(1, cells, 10**6, lambda: bound)
    assert resumed.find(1) is not None


def test_a_run_of_another_number_of_processes_is_refused(stopped, tmp_path):
    _, folder = stopped
    with pytest.raises(
        ArtifactError, match=r"keeps an unfinished run of 1 processes, and now .* 2"
    ):
        Checkpoint(folder, {}, 1, (0, 2))
    share = tmp_path / "shared" / "0-of-2"
    share.parent.mkdir()
    folder.rename(share)
    with pytest.raises(
        ArtifactError, match=r"keeps an unfinished run of 2 processes, and now .* 1"
    ):
        job.dissect(job.Counted(), share.parent)
