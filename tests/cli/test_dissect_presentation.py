"""What the pages of ``dissect`` are filled with."""

import torch

from captum_blackbox.cli.dissect_explain import Explained, Reason
from captum_blackbox.cli.dissect_presentation import _image
from captum_blackbox.dissection import LocalExplanation


def test_concepts_that_are_written_alike_each_keep_their_map(tmp_path):
    one = torch.tensor([0])
    cells = torch.tensor([2.0, 1.0]).view(1, 2, 1, 1)
    explanation = LocalExplanation(
        "conv", one, torch.tensor([3.0]), torch.tensor([0.0]), cells, ("street", "street-s"),
        torch.tensor([True]),
    )  # fmt: skip
    heat = torch.arange(4.0).view(1, 2, 2)
    maps = {"": heat, "street": heat, "street-s": heat.flip(2)}
    reason = Reason("town", is_predicted=True, probability=1.0, explanation=explanation, maps=maps)
    explained = Explained("a.jpg", torch.rand(3, 2, 2), None, (reason,))
    shown = _image(tmp_path, 0, explained).reasons[0].maps
    assert list(shown) == ["all concepts", "street", "street-s"]
    assert shown["all concepts"] == shown["street"] != shown["street-s"]
    assert len(list((tmp_path / "maps").iterdir())) == 3
