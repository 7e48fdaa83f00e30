"""LayerSumGradCAM against its definition, against Captum, and against closed forms."""

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerAttribution, LayerGradCam
from hypothesis import given
from networks import FunctionalInPlace, GapLinear, RunsTwice, SideBranch, Tokens, TwoConvs
from torch import nn

from captum_blackbox.errors import ExplanationWarning, InputError, LayerError, ShapeError
from captum_blackbox.student import LayerSumGradCAM, channels_last_map, token_map
from captum_blackbox.student.layer_maps import grad_cam, normalized

NORMALIZATIONS = ["none", "max", "minmax", "l1", "l2"]


def naive_bilinear(grid, height, width):
    """Half-pixel bilinear enlargement, one pixel at a time."""
    h, w = grid.shape
    out = torch.zeros(height, width, dtype=grid.dtype)
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * h / height - 0.5, 0), h - 1)
            u = min(max((x + 0.5) * w / width - 0.5, 0), w - 1)
            y0, x0 = int(v), int(u)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            a, b = v - y0, u - x0
            out[y, x] = (
                grid[y0, x0] * (1 - a) * (1 - b)
                + grid[y0, x1] * (1 - a) * b
                + grid[y1, x0] * a * (1 - b)
                + grid[y1, x1] * a * b
            )
    return out


def naive_normalized(m, kind):
    if kind == "minmax":
        m = m - m.min()
    scale = {
        "none": torch.tensor(1.0),
        "max": m.max(),
        "minmax": m.max(),
        "l1": m.sum(),
        "l2": (m * m).sum().sqrt(),
    }[kind]
    return m / scale if scale > 0 else torch.zeros_like(m)


def naive_layer_map(model, layer, image, target, kind):
    """Grad-CAM of one layer of one image, following ICCV 2017 eq. 1 and 2 with loops."""
    kept = []
    handle = layer.register_forward_hook(lambda _m, _i, out: kept.append(out) or out.clone())
    score = model(image[None].requires_grad_())[0, target]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    activation, gradient = kept[0][0].detach(), gradient[0]
    total = torch.zeros(activation.shape[1:], dtype=image.dtype)
    for k in range(len(activation)):
        total += gradient[k].mean() * activation[k]
    total = torch.where(total > 0, total, 0.0)
    return naive_normalized(naive_bilinear(total, *image.shape[1:]), kind)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("make", [TwoConvs, lambda: TwoConvs(inplace=True), FunctionalInPlace])
def test_it_follows_the_definition(make, normalize):
    model = make().double().eval()
    images = torch.rand(2, 3, 11, 8, dtype=torch.float64)
    targets = [2, 0]
    expected = torch.stack(
        [
            sum(
                naive_layer_map(model, layer, image.clone(), target, normalize)
                for layer in (model.conv1, model.conv2)
            )
            for image, target in zip(images, targets, strict=True)
        ]
    )
    maps = LayerSumGradCAM(model, normalize=normalize).attribute(images, target=targets)
    torch.testing.assert_close(maps[:, 0], expected)
    assert float(expected.amax((1, 2)).min()) > 0


@pytest.mark.parametrize("layer", ["conv1", "norm", "conv2"])
def test_one_layer_equals_captum(layer):
    model = TwoConvs().eval()
    images = torch.rand(2, 3, 11, 8)
    captum = LayerGradCam(model, getattr(model, layer))
    coarse = captum.attribute(images, target=1, relu_attributions=True)
    expected = LayerAttribution.interpolate(coarse, (11, 8), "bilinear")
    ours = LayerSumGradCAM(model, [layer]).attribute(images, target=1)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.real
def test_every_layer_of_the_real_squeezenet_equals_captum(data):
    model = data.squeezenet_imagenet()
    pixels, labels, _ = data.photographs(2)
    images = data.normalise(pixels)
    explainer = LayerSumGradCAM(model)
    layers = explainer.attribute_per_layer(images, target=labels)
    assert len(layers) == 26
    total = 0
    for name, module in explainer.layers.items():
        coarse = LayerGradCam(model, module).attribute(images, labels, relu_attributions=True)
        expected = LayerAttribution.interpolate(coarse, (224, 224), "bilinear")
        torch.testing.assert_close(layers[name], expected, atol=1e-6, rtol=1e-5)
        total = total + expected
    torch.testing.assert_close(explainer.attribute(images, labels), total, atol=1e-5, rtol=1e-5)


def test_with_global_pooling_and_a_linear_head_it_is_the_class_activation_map():
    model = GapLinear().double().eval()
    images = torch.rand(2, 3, 6, 5, dtype=torch.float64)
    activation = model.relu(model.conv(images))
    cam = torch.einsum("nkhw,k->nhw", activation, model.linear.weight[1]).relu() / (6 * 5)
    ours = LayerSumGradCAM(model, ["relu"]).attribute(images, target=1)
    torch.testing.assert_close(ours[:, 0], cam)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_the_sum_over_layers_is_linear(normalize):
    model, images = TwoConvs().eval(), torch.rand(2, 3, 11, 8)

    def attribute(*layers, **settings):
        explainer = LayerSumGradCAM(model, list(layers), normalize=normalize)
        return explainer.attribute(images, target=1, **settings)

    first, second = attribute("conv1"), attribute("conv2")
    torch.testing.assert_close(attribute("conv1", "conv2"), first + second)
    torch.testing.assert_close(attribute("conv2", "conv1"), first + second)
    weighted = attribute("conv1", "conv2", layer_weights={"conv1": 3.0})
    torch.testing.assert_close(weighted, 3 * first)
    per_image = torch.tensor([0.5, 2.0])
    weighted = attribute("conv1", "conv2", layer_weights={"conv1": per_image, "conv2": 1.0})
    torch.testing.assert_close(weighted, first * per_image.view(2, 1, 1, 1) + second)


def test_the_last_layer_and_the_sum_count_the_same():
    explainer, images = LayerSumGradCAM(TwoConvs().eval()), torch.rand(2, 3, 11, 8)
    layers = explainer.attribute_per_layer(images, target=1)
    parts = (layers["conv2"], explainer.attribute(images, target=1))
    expected = sum(each / each.sum((1, 2, 3), keepdim=True) for each in parts)
    maps = explainer.attribute(images, target=1, layer_weights="last_and_sum")
    torch.testing.assert_close(maps, expected)
    with pytest.raises(InputError, match="layer_weights is one of 'last_and_sum', got 'best'"):
        explainer.attribute(images, target=1, layer_weights="best")


def test_the_layers_add_up_to_the_sum_and_come_in_running_order():
    explainer = LayerSumGradCAM(TwoConvs().eval(), ["conv2", "conv1"])
    images = torch.rand(2, 3, 11, 8)
    layers = explainer.attribute_per_layer(images, target=1)
    assert list(layers) == ["conv1", "conv2"]
    torch.testing.assert_close(sum(layers.values()), explainer.attribute(images, target=1))


@given(scale=st.floats(0.01, 100))
def test_scaling_the_logits_scales_only_the_literal_sum(scale):
    torch.manual_seed(0)
    model, images = TwoConvs().double().eval(), torch.rand(1, 3, 8, 8).double()

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return scale * self.model(x)

    for normalize in NORMALIZATIONS:
        plain = LayerSumGradCAM(model, normalize=normalize).attribute(images, target=1)
        scaled = LayerSumGradCAM(Scaled(), normalize=normalize).attribute(images, target=1)
        torch.testing.assert_close(scaled, plain * (scale if normalize == "none" else 1.0))


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_maps_are_bounded_and_a_zero_map_stays_zero(normalize):
    maps = torch.rand(3, 1, 4, 5)
    maps[1] = 0
    maps[2] = 7.0
    result = normalized(maps, normalize)
    assert bool(result.isfinite().all()) and float(result.min()) >= 0
    assert float(result[1].sum()) == 0
    if normalize in {"max", "minmax"}:
        assert float(result.max()) <= 1
    if normalize == "minmax":
        assert float(result[2].sum()) == 0  # a constant map says nothing
    if normalize == "l1":
        torch.testing.assert_close(result[0].sum(), torch.tensor(1.0))
    if normalize == "l2":
        torch.testing.assert_close(result[2].norm(), torch.tensor(1.0))


def test_constant_scores_give_a_zero_map_without_nan():
    model = TwoConvs().eval()
    nn.init.zeros_(model.linear.weight)
    message = r"the map of image 0 is 0 everywhere \(2 of 2 are\)"
    for normalize in NORMALIZATIONS:
        explainer = LayerSumGradCAM(model, normalize=normalize)
        with pytest.warns(ExplanationWarning, match=message) as caught:
            maps = explainer.attribute(torch.rand(2, 3, 8, 8), 0)
        assert float(maps.abs().max()) == 0
        assert caught[0].filename == __file__  # it points at the user's line


def test_a_map_that_is_no_number_is_refused():
    images = torch.rand(2, 3, 8, 8)
    images[1, 0, 0, 0] = float("nan")
    message = "the map of image 1 is not finite in torch.float32; look for NaN in the image"
    with pytest.raises(InputError, match=message):
        LayerSumGradCAM(TwoConvs().eval()).attribute(images, 0)


def test_under_autocast_the_map_keeps_its_precision():
    activation, gradient = torch.rand(1, 8, 16, 16), torch.rand(1, 8, 16, 16)
    expected = grad_cam(activation, gradient)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(grad_cam(activation, gradient), expected)


@pytest.mark.parametrize("weight", [torch.ones(3), float("nan")], ids=["three", "nan"])
def test_a_weight_that_does_not_fit_is_refused(weight):
    explainer = LayerSumGradCAM(TwoConvs().eval())
    message = "the weight of layer 'conv1' is one finite number, or one for each of 2 images; got"
    with pytest.raises(InputError, match=message):
        explainer.attribute(torch.rand(2, 3, 8, 8), 0, layer_weights={"conv1": weight})


def test_an_in_place_relu_changes_nothing():
    plain, inplace, functional = TwoConvs(), TwoConvs(inplace=True), FunctionalInPlace()
    for model in (inplace, functional):
        model.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 9, 9)
    layers = ["conv1", "norm", "conv2"]
    expected = LayerSumGradCAM(plain, layers).attribute(images, target=1)
    for model in (inplace, functional):
        maps = LayerSumGradCAM(model, layers).attribute(images, target=1)
        torch.testing.assert_close(maps, expected)


def test_a_model_that_writes_to_its_input_does_not_write_to_ours():
    class Writes(GapLinear):
        def forward(self, x):
            x -= 0.5
            return super().forward(x)

    images = torch.rand(1, 3, 6, 6)
    before = images.clone()
    maps = LayerSumGradCAM(Writes()).attribute(images, target=0)
    assert torch.equal(images, before) and float(maps.sum()) > 0


def test_layers_off_the_path_get_a_zero_map_and_a_warning():
    explainer = LayerSumGradCAM(SideBranch(), ["main", "side", "never"])
    images = torch.rand(1, 3, 8, 8)
    message = "no path leads from 'side', 'never' to the target"
    with pytest.warns(ExplanationWarning, match=message):
        layers = explainer.attribute_per_layer(images, target=0)
    assert layers.keys() == {"main", "side", "never"}
    assert float(layers["side"].sum()) == float(layers["never"].sum()) == 0
    with pytest.warns(ExplanationWarning, match=message):
        total = explainer.attribute(images, target=0)
    torch.testing.assert_close(total, layers["main"])


def test_by_default_a_convolution_that_never_runs_is_left_out():
    with pytest.warns(ExplanationWarning, match="no path leads from 'side' to the target"):
        layers = LayerSumGradCAM(SideBranch()).attribute_per_layer(torch.rand(1, 3, 8, 8), 0)
    assert list(layers) == ["side", "main"]


def test_a_layer_used_twice_is_an_error_and_can_be_left_out():
    with pytest.raises(LayerError, match="layer 'shared' .* runs more than once"):
        LayerSumGradCAM(RunsTwice()).attribute(torch.rand(1, 3, 8, 8), target=0)


def test_tokens_need_a_reshape_transform_and_are_then_explained():
    model, images = Tokens().eval(), torch.rand(2, 3, 16, 16)
    layers = ["block1", "block1.linear2"]
    message = r"layer 'block1.linear2' puts out shape \(2, 17, 8\), not a map.*token_map"
    with pytest.raises(LayerError, match=message):
        LayerSumGradCAM(model, layers).attribute(images, target=0)
    explainer = LayerSumGradCAM(model, ["block1"], reshape_transform=token_map())
    maps = explainer.attribute(images, target=0)
    # By hand: tokens without the first are cells of a 4 × 4 grid, row by row.
    kept = []
    handle = model.block1.register_forward_hook(lambda _m, _i, out: kept.append(out))
    score = model(images.clone().requires_grad_())[:, 0].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    tokens, weights = kept[0][:, 1:].detach(), gradient[:, 1:].mean(1)
    coarse = torch.einsum("ntk,nk->nt", tokens, weights).relu().reshape(2, 1, 4, 4)
    expected = F.interpolate(coarse, size=(16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(maps, expected)
    assert float(maps.max()) > 0


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t"])
@pytest.mark.slow
def test_real_transformers_are_explained(name):
    import torchvision

    model = getattr(torchvision.models, name)(weights=None)
    for head in (module for module in model.modules() if isinstance(module, nn.Linear)):
        nn.init.normal_(head.weight, std=0.05)  # torchvision starts the last one at zero
    layers = ["encoder.layers.encoder_layer_10"] if name == "vit_b_16" else ["features.7.1"]
    transform = token_map() if name == "vit_b_16" else channels_last_map
    explainer = LayerSumGradCAM(model, layers, reshape_transform=transform)
    maps = explainer.attribute(torch.rand(1, 3, 224, 224), target=0)
    assert maps.shape == (1, 1, 224, 224) and float(maps.sum()) > 0


def test_token_maps_say_what_does_not_fit():
    with pytest.raises(
        ShapeError, match=r"16 patches after 1 prefix tokens do not fill a grid of 3"
    ):
        token_map((3, 5))(torch.zeros(1, 17, 8))
    with pytest.raises(ShapeError, match=r"expected tokens \(N, T, K\), got shape \(1, 8, 4, 4\)"):
        token_map()(torch.zeros(1, 8, 4, 4))
    rows = torch.arange(6.0).reshape(1, 6, 1)
    assert token_map((2, 3), prefix_tokens=0)(rows)[0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_probabilities_are_explained_with_a_warning():
    model = nn.Sequential(TwoConvs(), nn.Softmax(1)).eval()
    with pytest.warns(ExplanationWarning, match="Grad-CAM explains the logit"):
        LayerSumGradCAM(model).attribute(torch.rand(1, 3, 8, 8), target=0)


def test_with_a_graph_the_maps_can_be_differentiated():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Softplus(), nn.Conv2d(3, 2, 3), nn.Softplus(), nn.Flatten(),
        nn.Linear(2 * 2 * 2, 2),
    ).double()  # fmt: skip
    explainer = LayerSumGradCAM(model)

    def maps(x):
        return explainer.attribute(x, target=1, grad_kwargs={"create_graph": True})

    images = torch.rand(1, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    assert maps(images).requires_grad
    assert torch.autograd.gradcheck(maps, images)


def test_a_compiled_and_a_parallel_model_are_unwrapped():
    model, images = TwoConvs().eval(), torch.rand(1, 3, 8, 8)
    expected = LayerSumGradCAM(model, ["conv1"]).attribute(images, target=0)
    for wrapped in (torch.compile(model, backend="eager"), nn.DataParallel(model)):
        maps = LayerSumGradCAM(wrapped, [model.conv1]).attribute(images, target=0)
        torch.testing.assert_close(maps, expected)


def test_grad_cam_by_hand():
    activation = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])
    gradient = torch.tensor([[[[4.0, 0.0]], [[-1.0, 0.0]]]])
    # Weights 2 and −0.5: 2·1 − 0.5·3 = 0.5 and 2·2 + 0.5·1 = 4.5.
    assert grad_cam(activation, gradient).tolist() == [[[[0.5, 4.5]]]]


def test_what_cannot_be_used_is_named(as_users_call):
    with pytest.raises(
        InputError, match="normalize is one of 'none', 'max', 'minmax', 'l1', 'l2', got 'sum'"
    ):
        LayerSumGradCAM(TwoConvs(), normalize="sum")
    with pytest.raises(
        InputError, match="needs the layers of an nn.Module, got function.*Distilled"
    ):
        LayerSumGradCAM(lambda x: x)
    explainer = LayerSumGradCAM(TwoConvs().eval())
    with pytest.raises(InputError, match=r"layer_weights names \['conv9'\], which are not among"):
        explainer.attribute(torch.rand(1, 3, 8, 8), 0, layer_weights={"conv9": 1.0})
