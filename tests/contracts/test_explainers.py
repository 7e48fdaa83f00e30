"""What every explainer promises; add a row to tests/registry.py, not a test."""

import copy
import warnings

import numpy as np
import pytest
import torch
from captum.attr import Attribution, NoiseTunnel
from captum.attr import visualization as viz
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from networks import Raises, State, TwoConvs
from registry import EXPLAINERS

import captum_blackbox
from captum_blackbox.errors import ShapeError, TargetError

every_explainer = pytest.mark.parametrize("explainer", EXPLAINERS, ids=lambda e: e.name)


def a_model(**settings):
    model = TwoConvs(**settings).train()
    model.norm.eval()  # a frozen layer stays frozen
    model.conv1.weight.requires_grad_(False)
    model.linear.weight.grad = torch.ones_like(model.linear.weight)
    model.norm.running_mean.normal_()
    return model


def test_every_public_explainer_is_in_the_registry():
    public = [getattr(captum_blackbox, name) for name in captum_blackbox.__all__]
    explainers = {
        each.__name__ for each in public if isinstance(each, type) and issubclass(each, Attribution)
    }
    assert explainers == {each.name for each in EXPLAINERS}


@every_explainer
def test_a_call_leaves_the_model_as_it_was(explainer, device):
    model = a_model(inplace=True).to(device)
    before = State(model)
    explainer.make(model).attribute(torch.rand(2, 3, 12, 10, device=device), target=1)
    assert State(model).differences(before) == []


@every_explainer
@pytest.mark.parametrize("target", [9999, (9999,) * 20, [0, 1, 2], 1.5, "cat"], ids=repr)
def test_a_wrong_target_leaves_the_model_as_it_was(explainer, target):
    model = a_model()
    before = State(model)
    # Ours to read; Captum's own tests expect an AssertionError or an IndexError.
    with pytest.raises(TargetError) as caught:
        explainer.make(model).attribute(torch.rand(2, 3, 12, 10), target=target)
    assert isinstance(caught.value, AssertionError | IndexError)
    assert State(model).differences(before) == []


@every_explainer
def test_a_layer_that_raises_leaves_the_model_as_it_was(explainer):
    model = Raises().train()
    before = State(model)
    with pytest.raises(RuntimeError, match="a layer broke"):
        explainer.make(model).attribute(torch.rand(2, 3, 12, 10), target=0)
    assert State(model).differences(before) == []


@every_explainer
def test_the_input_is_left_as_it_was(explainer):
    images = torch.rand(2, 3, 12, 10, requires_grad=True)
    before = images.detach().clone()
    result = explainer.make(a_model()).attribute(images, target=1)
    assert torch.equal(images, before)
    assert images.requires_grad and images.grad is None
    assert not result.requires_grad


@every_explainer
def test_the_random_numbers_of_the_user_are_left_alone(explainer):
    made, images = explainer.make(a_model()), torch.rand(2, 3, 12, 10)
    before = torch.get_rng_state()
    made.attribute(images, target=1)
    assert torch.equal(torch.get_rng_state(), before)


@every_explainer
def test_a_batch_equals_its_images_one_by_one(explainer, device):
    made = explainer.make(a_model().to(device))
    images = torch.rand(3, 3, 12, 10, device=device)
    together = made.attribute(images, target=[0, 1, 2])
    one_by_one = [made.attribute(images[i : i + 1], target=i) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(one_by_one), atol=1e-5, rtol=1e-4)


@every_explainer
def test_two_calls_give_the_same(explainer):
    made = explainer.make(a_model())
    images = torch.rand(2, 3, 12, 10)
    assert torch.equal(made.attribute(images, target=1), made.attribute(images, target=1))


@every_explainer
def test_tensor_in_tensor_out_tuple_in_tuple_out(explainer):
    made = explainer.make(a_model())
    images = torch.rand(2, 3, 12, 10)
    tensor, several = made.attribute(images, target=1), made.attribute((images,), target=1)
    assert isinstance(several, tuple) and len(several) == 1
    assert torch.equal(tensor, several[0])
    with pytest.raises(ShapeError, match=r"explains one tensor of images, got \(Tensor, Tensor\)"):
        made.attribute((images, images), target=1)


@every_explainer
def test_every_form_of_a_target_means_the_same(explainer):
    made = explainer.make(a_model())
    images = torch.rand(2, 3, 12, 10)
    expected = made.attribute(images, target=1)
    forms = [
        torch.tensor(1),
        torch.tensor([1]),
        torch.tensor([1, 1]),
        torch.tensor([1, 1], dtype=torch.int32),
        [1, 1],
        (1,),
        [(1,), (1,)],
    ]
    for target in forms:
        torch.testing.assert_close(made.attribute(images, target=target), expected)


@every_explainer
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_maps_are_on_the_device_and_in_the_dtype_of_the_input(explainer, dtype, device):
    made = explainer.make(a_model().to(device, dtype))
    maps = made.attribute(torch.rand(2, 3, 12, 10, device=device, dtype=dtype), target=1)
    assert maps.shape == (2, explainer.channels, 12, 10)
    assert maps.dtype == dtype
    assert maps.device.type == torch.device(device).type
    assert bool(maps.isfinite().all()) and float(maps.float().abs().sum()) > 0


@pytest.mark.parametrize(
    "explainer", [e for e in EXPLAINERS if e.channels == 1], ids=lambda e: e.name
)
def test_expanding_to_the_input_spreads_a_map_over_the_channels(explainer):
    made = explainer.make(a_model())
    images = torch.rand(2, 3, 12, 10)
    expanded = made.attribute(images, target=1, expand_to_input=True)
    assert expanded.shape == images.shape
    torch.testing.assert_close(expanded.sum(1, keepdim=True), made.attribute(images, target=1))
    assert torch.equal(expanded[:, 0], expanded[:, 2])


@every_explainer
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_without_gradients(explainer, mode):
    made = explainer.make(a_model())
    images = torch.rand(2, 3, 12, 10)
    expected = made.attribute(images, target=1)
    with mode():
        torch.testing.assert_close(made.attribute(images, target=1), expected)
        torch.testing.assert_close(made.attribute(images.clone(), target=1), expected)


@every_explainer
def test_captums_noise_tunnel_takes_it(explainer):
    made = explainer.make(a_model())
    images = torch.rand(2, 3, 12, 10)
    still = NoiseTunnel(made).attribute(images, nt_samples=3, stdevs=0.0, target=[1, 2])
    torch.testing.assert_close(still, made.attribute(images, target=[1, 2]), atol=1e-5, rtol=1e-4)
    noisy = NoiseTunnel(made).attribute(
        (images,), nt_type="vargrad", nt_samples=3, nt_samples_batch_size=2, stdevs=0.3, target=1
    )
    assert noisy[0].shape == (2, explainer.channels, 12, 10) and float(noisy[0].sum()) > 0


@every_explainer
def test_captums_metrics_take_it(explainer):
    model = a_model().eval()
    made = explainer.make(model)
    images = torch.rand(2, 3, 12, 10)
    score = sensitivity_max(
        made.attribute, images, target=torch.tensor([1, 2]), n_perturb_samples=3
    )
    assert score.shape == (2,) and bool((score > 0).all())

    @infidelity_perturb_func_decorator(False)
    def perturb(inputs):
        return inputs - 0.1

    expanded = {"expand_to_input": True} if explainer.channels == 1 else {}
    maps = made.attribute(images, target=1, **expanded)
    with torch.no_grad():
        score = infidelity(model, perturb, images, maps, target=1, n_perturb_samples=2)
        # By hand: ((Σ noise · map) − (f(x) − f(x − noise)))².
        change = model(images)[:, 1] - model(images - 0.1)[:, 1]
    torch.testing.assert_close(score, (0.1 * maps.sum((1, 2, 3)) - change) ** 2)


@every_explainer
def test_captums_visualizer_takes_it(explainer):
    images = torch.rand(1, 3, 12, 10)
    maps = explainer.make(a_model()).attribute(images, target=1)
    figure, _ = viz.visualize_image_attr(
        np.transpose(maps[0].numpy(), (1, 2, 0)),
        np.transpose(images[0].numpy(), (1, 2, 0)),
        method="blended_heat_map",
        sign="absolute_value",
        use_pyplot=False,
    )
    figure.canvas.draw()


@every_explainer
def test_it_speaks_captums_language(explainer):
    made = explainer.make(a_model())
    assert made.get_name() == explainer.name
    assert made.has_convergence_delta() is explainer.has_delta
    assert hasattr(type(made).attribute, "__wrapped__")
    message = f"attribute_future is not implemented for {explainer.name}"
    with pytest.raises(NotImplementedError, match=message):
        made.attribute_future()
    copy.deepcopy(made)


@every_explainer
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 12, 10), r"expected .*\(N, .*\).*, got shape \(3, 12, 10\)"),
        (torch.zeros(1, 3, 12, 10, dtype=torch.uint8), r"images\.float\(\) / 255"),
        (torch.zeros(0, 3, 12, 10), r"expected at least one .*, got shape \(0, 3, 12, 10\)"),
    ],
    ids=["3-d", "uint8", "empty"],
)
def test_what_is_no_batch_of_images_is_refused(explainer, images, message):
    with pytest.raises(ShapeError, match=message):
        explainer.make(a_model()).attribute(images, target=1)


@every_explainer
def test_no_warning_on_an_ordinary_model(explainer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explainer.make(a_model().eval()).attribute(torch.rand(1, 3, 12, 10), target=1)
