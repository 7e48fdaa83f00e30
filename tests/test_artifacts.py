import csv

import pytest
import torch
from networks import TwoConvs
from torch import nn

from captum_blackbox.artifacts import (
    check_header,
    fingerprint,
    load_artifact,
    replaced_on_success,
    save_artifact,
    text_of_cell,
    write_table,
)
from captum_blackbox.errors import ArtifactError


def test_tensors_of_every_dtype_and_the_header_come_back_bit_for_bit(tmp_path):
    tensors = {
        "half": torch.randn(3).half(),
        "brain": torch.randn(2, 2).bfloat16(),
        "double": torch.randn(4, dtype=torch.float64),
        "count": torch.tensor(3),
        "view": torch.randn(4, 4).T,
    }
    tensors["same memory"] = tensors["double"]
    save_artifact(
        tmp_path / "deep" / "a.safetensors", tensors, {"kind": "x", "list": [1, 2.5, None]}
    )
    loaded, header = load_artifact(tmp_path / "deep" / "a.safetensors")
    assert header == {"kind": "x", "list": [1, 2.5, None]}
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replaced_on_success(path) as temporary:
        temporary.write_text("half of the ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_mismatch_is_refused_and_named_and_more_in_the_file_is_fine():
    check_header("f", {"kind": "x", "sizes": [1, 2], "extra": 0}, {"kind": "x", "sizes": (1, 2)})
    message = r"'f' does not belong here: kind is 'x' in the file, 'y' here, seed is None in the file, 1 here; give another file, or the settings"
    with pytest.raises(ArtifactError, match=message):
        check_header("f", {"kind": "x"}, {"kind": "y", "seed": 1})


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="there is no file '.*absent'"):
        load_artifact(tmp_path / "absent")
    (tmp_path / "text").write_text("no tensors here")
    with pytest.raises(ArtifactError, match="text' is not a safetensors file"):
        load_artifact(tmp_path / "text")
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "foreign")
    with pytest.raises(ArtifactError, match="was not written by captum_blackbox: it has no header"):
        load_artifact(tmp_path / "foreign")


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ArtifactError, match="cannot write '.*file/a': .*; choose a file in a folder"
    ):
        save_artifact(tmp_path / "file" / "a", {}, {})


def test_a_fingerprint_changes_with_a_weight_a_name_a_shape_and_a_buffer():
    model = TwoConvs()
    prints = {fingerprint(model), fingerprint(nn.Linear(2, 2)), fingerprint(nn.Linear(4, 1))}
    model.norm.running_mean[0] += 1e-6
    prints.add(fingerprint(model))
    with torch.no_grad():
        model.linear.weight[0, 0] += 1e-6
    prints.add(fingerprint(model))
    prints.add(fingerprint(nn.Sequential(model)))
    assert len(prints) == 6
    linear = nn.Linear(2, 2)
    bounded = nn.Sequential(linear, nn.Tanh())
    assert fingerprint(bounded) != fingerprint(nn.Sequential(linear, nn.ReLU()))  # equal weights
    assert fingerprint(model) == fingerprint(model)


def test_a_reader_sees_the_old_file_or_the_new_one_never_half_of_it(tmp_path):
    path = tmp_path / "a.safetensors"
    save_artifact(path, {"a": torch.zeros(3)}, {})
    before = path.read_bytes()
    with path.open("rb") as reader:
        save_artifact(path, {"a": torch.ones(1000)}, {})
        assert reader.read() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_has_no_formula_keeps_its_numbers_and_reads_back(tmp_path):
    texts = ["=1+1", "+x", "-0.5", "@a", "\tx", "'=1+1", "''-x", "'", "'quoted'", "a=b", " -x", ""]
    numbers = [-0.5, -3, 1e-9, None]
    path = tmp_path / "new" / "a.csv"
    write_table(path, [texts, [*numbers, *texts[4:]]])
    with path.open(newline="", encoding="utf-8") as file:
        first, second = csv.reader(file)
    assert first[:7] == ["'=1+1", "'+x", "'-0.5", "'@a", "'\tx", "''=1+1", "'''-x"]
    assert first[7:] == texts[7:]
    assert second[:4] == ["-0.5", "-3", "1e-09", ""]
    assert [text_of_cell(cell) for cell in first] == texts
