"""Patterns on disk, and which networks they are good for."""

import copy
import re

import pytest
import torch
from pattern_networks import Residual, centred, with_statistics
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.testing import assert_close

from captum_blackbox.artifacts import load_artifact, save_artifact
from captum_blackbox.errors import ArtifactError, InputError
from captum_blackbox.patterns import PatternAttribution, PatternNet, Patterns

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* have patterns that are huge or turned around"),
    pytest.mark.filterwarnings("ignore:.* units of layer .* have no pattern"),
]
REGIMES = ["positive", "two_component", "filter"]


def fit(model, data, regime="positive"):
    return Patterns.fit(model, data, regime=regime, show_progress=False)


def trained(seed=0):
    torch.manual_seed(seed)
    model = with_statistics(Residual())
    return centred(model, torch.randn(40, 2, 6, 6))


def images(n=30):
    return torch.randn(n, 2, 6, 6)


@pytest.fixture
def kept(tmp_path):
    """A model, its patterns and the file that they were written to."""
    model = trained()
    patterns = fit(model, images(), "two_component")
    patterns.save(tmp_path / "patterns.safetensors")
    return model, patterns, tmp_path / "patterns.safetensors"


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_is_written_is_read_to_the_last_bit(tmp_path, regime, dtype):
    model = trained().to(dtype)
    with torch.no_grad():
        model.stem.bias[0] = -1000  # a dead unit, to be listed
    patterns = fit(model, images().to(dtype), regime)
    path = tmp_path / "new" / "folder" / "patterns.safetensors"
    patterns.save(path)
    loaded = Patterns.load(path, model)
    for mine, read in (
        (dict(patterns), dict(loaded)),
        (patterns.negative, loaded.negative),
        (patterns.shares, loaded.shares),
        (patterns._signatures, loaded._signatures),
    ):
        assert set(mine) == set(read)
        assert_close(read, mine, rtol=0, atol=0)
    assert list(loaded) == list(patterns)
    for name in ("structure", "regime", "final", "report"):
        assert getattr(loaded, name) == getattr(patterns, name)
    assert repr(loaded) == repr(patterns)
    x = images(2).to(dtype)
    for method in (PatternNet, PatternAttribution):
        settings = {"residual": "pattern"}
        expected = method(model, patterns, **settings).attribute(x, target=0)
        assert torch.equal(method(model, loaded, **settings).attribute(x, target=0), expected)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_nothing_is_pickled(kept, monkeypatch):
    import pickle

    def refused(*_, **__):
        raise AssertionError("something was pickled")

    model, patterns, path = kept
    for name in ("load", "loads", "dump", "dumps", "Unpickler", "Pickler"):
        monkeypatch.setattr(pickle, name, refused)
    patterns.save(path)
    Patterns.load(path, model)
    assert path.read_bytes()[8:9] == b"{"  # safetensors: a length, then JSON


def refused(layer, difference, model="Residual"):
    message = (
        f"these patterns were fitted to another model than this {model}: layer {layer!r} "
        f"{difference}; load the weights that they were fitted to, or fit them again"
    )
    return pytest.raises(ArtifactError, match=f"^{re.escape(message)}$")


def test_other_weights_are_refused_and_the_layer_is_named(kept):
    model, patterns, path = kept
    with refused("stem", "has other weights in it"):
        PatternNet(trained(seed=1), patterns)
    with torch.no_grad():
        model.conv.weight[0, 0, 0, 0] += 1e-3
    with refused("conv", "has other weights in it"):
        Patterns.load(path, model)


def test_of_many_layers_that_differ_the_first_to_run_is_named_by_load_too(kept):
    with refused("stem", "has other weights in it"):
        Patterns.load(kept[2], trained(seed=1))


@pytest.mark.parametrize(
    ("change", "layer"),
    [
        (lambda m: m.stem.weight[2, 1, 0, 0].add_(1e-3), "stem"),
        (lambda m: m.stem.bias[0].add_(1e-3), "stem"),
        (lambda m: m.stem.weight.copy_(m.stem.weight.flip(0)), "stem"),
        (lambda m: m.stem.weight.copy_(m.stem.weight.transpose(2, 3).clone()), "stem"),
        (lambda m: m.stem.weight.neg_(), "stem"),
        (lambda m: m.norm.running_mean[0].add_(1e-3), "conv"),
        (lambda m: m.norm.running_var.mul_(1.001), "conv"),
        (lambda m: m.norm.weight[1].mul_(1.001), "conv"),
        (lambda m: m.head.weight[0, :2].copy_(m.head.weight[0, :2].flip(0)), "head"),
        (lambda m: m.head.bias.copy_(m.head.bias.flip(0)), "head"),
        (lambda m: m.head.weight[1].zero_(), "head"),
    ],
    ids=[
        "weight",
        "bias",
        "units",
        "transposed",
        "sign",
        "mean",
        "variance",
        "scale",
        "taps",
        "biases",
        "zero",
    ],
)
def test_a_small_change_of_a_weight_or_a_statistic_is_refused(kept, change, layer):
    model, patterns, _ = kept
    with torch.no_grad():
        change(model)
    with refused(layer, "has other weights in it"):
        patterns.check(model)


def test_a_weight_that_is_no_number_is_refused(kept):
    model, patterns, _ = kept
    with torch.no_grad():
        model.stem.weight[0, 0, 0, 0] = float("nan")
    with refused("stem", "has other weights in it"):
        patterns.check(model)


def test_one_step_of_training_is_refused(kept):
    model, patterns, _ = kept
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    nn.functional.cross_entropy(model(images(8)), torch.zeros(8, dtype=torch.long)).backward()
    optimizer.step()
    with pytest.raises(ArtifactError, match="has other weights in it"):
        patterns.check(model)


def test_another_shape_and_a_missing_layer_are_refused(kept):
    model, patterns, path = kept
    wider = copy.deepcopy(model)
    wider.head = nn.Linear(3, 5)
    with refused("head", "has a weight of shape (5, 3) in it, and a pattern of shape (2, 3)"):
        Patterns.load(path, wider)
    with refused("stem", "is missing in it", "Sequential"):
        patterns.check(nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(ArtifactError, match="another model than this Sequential: layer '"):
        Patterns.load(path, nn.Sequential(nn.Linear(3, 2)))
    other = copy.deepcopy(model)
    other.stem = nn.Identity()
    with refused("stem", "is missing in it"):
        patterns.check(other)
    other = copy.deepcopy(model)
    del other.norm
    with pytest.raises(ArtifactError, match="layer 'conv' "):
        patterns.check(other)


def test_a_standing_batch_norm_must_be_there_too():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)).eval()
    patterns = fit(model, torch.randn(30, 3))
    other = nn.Sequential()
    other.add_module("1", model[1])
    with pytest.raises(ArtifactError, match="^this Sequential has no layer '0'$"):
        patterns.check(other)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_the_same_model_in_another_type_is_accepted(kept, dtype):
    model, patterns, path = kept
    Patterns.load(path, copy.deepcopy(model).to(dtype))
    maps = PatternNet(model.to(dtype), patterns).attribute(images(2).to(dtype), target=0)
    assert maps.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_patterns_fitted_in_half_precision_are_good_for_the_model_in_float32(dtype):
    model = trained()
    patterns = fit(copy.deepcopy(model).to(dtype), images().to(dtype))
    patterns.check(model)


def test_batch_norm_may_have_been_folded_in(kept):
    model, patterns, path = kept
    model.conv = fuse_conv_bn_eval(model.conv, model.norm)
    model.norm = nn.Identity()
    Patterns.load(path, model)
    with torch.no_grad():
        model.conv.weight[0, 0, 0, 0] += 1e-3
    with refused("conv", "has other weights in it"):
        patterns.check(model)


def test_a_batch_norm_that_was_folded_in_and_is_still_there_is_refused(kept):
    model, patterns, _ = kept
    model.conv = fuse_conv_bn_eval(model.conv, model.norm)
    with refused("conv", "has other weights in it"):
        patterns.check(model)


def test_a_wrapped_model_is_the_model_inside(kept):
    model, patterns, path = kept
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        patterns.check(wrapped)
        Patterns.load(path, wrapped)


def test_a_file_that_is_none_of_ours_is_refused(tmp_path):
    model = trained()
    with pytest.raises(ArtifactError, match="^there is no file '.*missing'$"):
        Patterns.load(tmp_path / "missing", model)
    (tmp_path / "text").write_text("patterns")
    with pytest.raises(ArtifactError, match="is not a safetensors file"):
        Patterns.load(tmp_path / "text", model)
    save_artifact(tmp_path / "other", {"a": torch.ones(1)}, {"kind": "student"})
    message = "does not belong here: kind is 'student' in the file, 'patterns' here; give another"
    with pytest.raises(ArtifactError, match=message):
        Patterns.load(tmp_path / "other", model)


def test_a_file_that_was_cut_short_is_refused(kept):
    model, _, path = kept
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="is not a safetensors file"):
        Patterns.load(path, model)


def test_a_file_without_a_layer_is_refused(kept):
    model, _, path = kept
    tensors, header = load_artifact(path)
    del tensors["pattern.head"]
    save_artifact(path, tensors, header)
    with pytest.raises(ArtifactError, match="head"):
        Patterns.load(path, model)


def test_it_is_a_mapping_in_the_order_in_which_layers_run(kept):
    model, patterns, _ = kept
    assert list(patterns) == ["stem", "conv", "head"] and len(patterns) == 3
    assert "stem" in patterns and "norm" not in patterns
    assert {name: each.shape for name, each in patterns.items()} == {
        name: model.get_submodule(name).weight.shape for name in patterns
    }
    with pytest.raises(KeyError):
        patterns["norm"]
    assert repr(patterns) == "Patterns('two_component', 3 layers, 30 images)"
    assert not any(each.requires_grad for each in patterns.values())


def test_other_tensors_can_take_the_place_of_patterns(kept):
    model, patterns, _ = kept
    given = {name: each + 1 for name, each in patterns.items()}
    other = patterns.replaced(given)
    assert_close(dict(other), given)
    assert list(other) == list(patterns) and other.structure == patterns.structure
    assert other.negative == {} and other.report.input_shape == (2, 6, 6)
    given["stem"].zero_()
    assert other["stem"].abs().sum() > 0  # copies
    other.check(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda given: given.pop("conv"),
            "expected a pattern of shape (3, 3, 3, 3) for layer 'conv', got none",
        ),
        (
            lambda given: given.update(head=torch.ones(3, 2)),
            "expected a pattern of shape (2, 3) for layer 'head', got (3, 2)",
        ),
        (
            lambda given: given.update(other=torch.ones(1)),
            "expected a pattern of shape none at all for layer 'other', got (1,)",
        ),
    ],
    ids=["missing", "shape", "beside"],
)
def test_tensors_that_do_not_fit_the_layers_are_refused(kept, change, message):
    given = dict(kept[1])
    change(given)
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        kept[1].replaced(given)


def test_loading_does_not_need_the_file_to_stay(kept):
    model, patterns, path = kept
    loaded = Patterns.load(path, model)
    path.unlink()
    assert_close(dict(loaded), dict(patterns))
