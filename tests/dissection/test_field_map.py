"""Receptive fields, beside those that gradients reach through networks of positive weights."""

import copy

import pytest
import torch
import torchvision.models as zoo
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from captum_blackbox.dissection.field_map import anchors, field_map
from captum_blackbox.dissection.field_rules import Field
from captum_blackbox.errors import LayerError

FIELDS = st.builds(Field, st.integers(-9, 9), st.integers(1, 9), st.integers(1, 5))


class Calls(nn.Module):
    """A network that is a function."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        self.last = nn.Identity()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, image, *more):
        return self.last(self.function(self, image, *more))


def naive_ends(network, layer, image, back):
    """Return a cell near the middle, and the first and last row and column that it depends on."""
    network = copy.deepcopy(network).double()
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.MaxPool2d):  # a mean depends on the whole window
            mean = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
            path, _, last = name.rpartition(".")
            setattr(network.get_submodule(path), last, mean)
    for parameter in network.parameters():
        nn.init.constant_(parameter, 1 / parameter[0].numel() if parameter.dim() > 1 else 0.5)
    kept = []
    network.get_submodule(layer).register_forward_hook(lambda m, i, output: kept.append(output))
    image = torch.ones_like(image, dtype=torch.float64).requires_grad_()
    network(image)
    cell = [count // 2 - back for count in kept[0].shape[-2:]]
    kept[0][0, :, cell[0], cell[1]].sum().backward()
    reached = image.grad[0].sum(0) != 0
    return cell, [reached.any(axis).nonzero().flatten()[[0, -1]].tolist() for axis in (1, 0)]


def numbers(cases):
    return [str(number) for number in range(len(cases))]


def of(function, size=(24, 24), layer="last", **layers):
    return field_map(Calls(function, **layers), layer, torch.rand(1, 3, *size))


def reference_alexnet():
    """The geometry of Caffe's reference network, up to conv5."""
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 11, 4), nn.ReLU(True), nn.MaxPool2d(3, 2), nn.LocalResponseNorm(5)),
        *(nn.Conv2d(4, 4, 5, padding=2), nn.ReLU(True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(True), nn.Conv2d(4, 4, 3, padding=1)),
        *(nn.ReLU(True), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(True)),
    )


def test_alexnets_conv5_is_that_of_the_published_code():
    rows, columns = field_map(reference_alexnet(), "12", torch.rand(1, 3, 227, 227))
    assert rows == columns == Field(-64, 163, 16)
    found = anchors(rows, 13, 227, 113)
    assert found.dtype == torch.float64 and found.tolist() == list(range(8, 105, 8))
    assert anchors(rows, 13, 227, 227).tolist() == list(range(17, 210, 16))


def meta_network(build):
    """Build without the time that random weights take."""
    with torch.device("meta"):
        network = build()
    network.to_empty(device="cpu")
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.01)
    for name, buffer in network.named_buffers():
        buffer.fill_(float("var" in name))
    return network.eval()


NETWORKS = {
    "alexnet": (lambda: zoo.alexnet().features, "11", (224, 240)),
    "vgg11": (lambda: zoo.vgg11().features, "13", (110, 120)),
    "squeezenet1_0": (lambda: zoo.squeezenet1_0().features, "12", (220, 230)),
    "resnet18": (lambda: nn.Sequential(*list(zoo.resnet18().children())[:6]), "5", (150, 160)),
    "mobilenet_v2": (lambda: zoo.mobilenet_v2().features[:11], "10", (250, 240)),
    "densenet121": (
        lambda: zoo.densenet121().features[:7],
        "denseblock2.denselayer3",
        (180, 170),
    ),
    "googlenet": (
        lambda: zoo.googlenet(aux_logits=False, init_weights=False),
        "inception3b",
        (120, 130),
    ),
    "inception_v3": (
        lambda: zoo.inception_v3(aux_logits=False, init_weights=False),
        "Mixed_5b",
        (170, 180),
    ),
    "shufflenet": (lambda: zoo.shufflenet_v2_x0_5(), "stage2", (120, 130)),
    "convnext": (lambda: zoo.convnext_tiny().features[:2], "1", (110, 120)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_fields_are_where_gradients_reach(name):
    build, layer, size = NETWORKS[name]
    network = meta_network(build)
    children = [each for each, _ in network.named_children()]
    for behind in children[children.index(layer.split(".")[0]) + 1 :]:
        setattr(network, behind, nn.Identity())  # it would only take time
    image = torch.rand(1, 3, *size)
    fields = field_map(network, layer, image)
    for back in (0, 1):
        cell, ends = naive_ends(network, layer, image, back)
        for axis, field in enumerate(fields):
            first = field.offset + cell[axis] * field.step
            assert ends[axis] == [first, first + field.size - 1]
            assert ends[axis][0] > 0 and ends[axis][1] < size[axis] - 1, "the field is cut off"


@given(FIELDS, FIELDS, FIELDS)
def test_composition_is_associative_and_has_a_neutral_field(first, second, third):
    assert first.compose(second).compose(third) == first.compose(second.compose(third))
    assert first.compose(Field(0, 1, 1)) == first == Field(0, 1, 1).compose(first)


@given(FIELDS, FIELDS, st.integers(0, 5))
def test_a_composed_field_is_the_pixels_seen_by_the_cells_that_are_seen(first, second, cell):
    start = second.offset + cell * second.step
    seen = {
        first.offset + middle * first.step + k
        for middle in range(start, start + second.size)
        for k in range(first.size)
    }
    both = first.compose(second)
    assert min(seen) == both.offset + cell * both.step
    assert max(seen) == min(seen) + both.size - 1


def test_by_hand_kernel_stride_padding_and_dilation():
    # 3 of stride 2 with padding 1: -1..1, 1..3, …; then 3 of these, two apart: -1..9.
    assert Field(0, 1, 1).then(3, 2, 1).then(3, 1, 0, 2) == Field(-1, 11, 2)
    assert Field(0, 1, 1).then(2, 2).then(2, 2, padding=1) == Field(-2, 4, 4)


def test_rows_and_columns_have_fields_of_their_own():
    found = of(
        lambda m, x: m.conv(x),
        conv=nn.Conv2d(3, 2, (3, 5), (1, 2), (0, 2), (4, 1)),
    )
    assert found == (Field(0, 9, 1), Field(-2, 5, 2))


KNOWN = [
    (lambda m, x: F.max_pool2d(x, 3), Field(0, 3, 3)),
    (lambda m, x: F.max_pool2d(x, 3, 2, 1), Field(-1, 3, 2)),
    (lambda m, x: F.max_pool2d(x, kernel_size=3, dilation=2, stride=1), Field(0, 5, 1)),
    (lambda m, x: F.max_pool2d(x, 2, return_indices=True)[0], Field(0, 2, 2)),
    (lambda m, x: F.avg_pool2d(x, (2, 2)), Field(0, 2, 2)),
    (lambda m, x: F.avg_pool2d(x, 3, stride=1, padding=1), Field(-1, 3, 1)),
    (lambda m, x: F.lp_pool2d(x, 2.0, 3, 2), Field(0, 3, 2)),
    (lambda m, x: F.adaptive_avg_pool2d(x, 24), Field(0, 1, 1)),
    (lambda m, x: F.adaptive_max_pool2d(x, (6, 6)), Field(0, 4, 4)),
    (lambda m, x: F.conv2d(x, torch.ones(2, 3, 4, 4), None, 1, "same", 2), Field(-3, 7, 1)),
    (lambda m, x: F.conv2d(x, torch.ones(2, 3, 4, 4), padding="valid"), Field(0, 4, 1)),
    (lambda m, x: x[:, :, ::2, ::2], Field(0, 1, 2)),
    (lambda m, x: x[..., 3:, 3:-1], Field(3, 1, 1)),
    (lambda m, x: x[:, :, 1::3][..., 1::3], Field(1, 1, 3)),
    (lambda m, x: x[:, 1:], Field(0, 1, 1)),
    (lambda m, x: F.pad(x, (1, 2, 1, 3)), Field(-1, 1, 1)),
    (lambda m, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)), Field(0, 1, 2)),
    (lambda m, x: nn.ReflectionPad2d(2)(x), Field(-2, 1, 1)),
    (lambda m, x: nn.Conv2d(3, 2, 3, padding=1, padding_mode="reflect")(x), Field(-1, 3, 1)),
    (lambda m, x: x.permute(0, 2, 3, 1).contiguous().permute((0, 3, 1, 2)), Field(0, 1, 1)),
    (lambda m, x: F.linear(x.transpose(1, -1), torch.ones(5, 3)).transpose(1, 3), Field(0, 1, 1)),
    (lambda m, x: nn.ChannelShuffle(3)(x), Field(0, 1, 1)),
    (lambda m, x: x.reshape(1, 1, 3, 24, 24).transpose(1, 2).flatten(1, 2), Field(0, 1, 1)),
    (lambda m, x: torch.cat(x.chunk(3, 1), 1).mul_(2).mean(1, keepdim=True), Field(0, 1, 1)),
]


@pytest.mark.parametrize(("function", "expected"), KNOWN, ids=numbers(KNOWN))
def test_functions_have_their_rules(function, expected):
    assert of(function) == (expected, expected)


def test_the_largest_field_of_several_inputs_counts_on_each_axis():
    tall, wide = nn.Conv2d(3, 3, (7, 1), padding=(3, 0)), nn.Conv2d(3, 3, (1, 5), padding=(0, 2))
    for join in (torch.add, torch.mul, lambda a, b: torch.cat([a, b], 1), torch.maximum):
        found = of(lambda m, x, join=join: join(m.tall(x), m.wide(x)), tall=tall, wide=wide)
        assert found == (Field(-3, 7, 1), Field(-2, 5, 1))


def test_what_is_the_same_for_the_whole_image_has_no_place():
    def gated(m, x):
        y = m.conv(x)
        return y * F.adaptive_avg_pool2d(y, 1).sigmoid() + y.mean((2, 3), keepdim=True)

    found = of(gated, conv=nn.Conv2d(3, 4, 3, 2))
    assert found == (Field(0, 3, 2),) * 2


def test_other_arguments_are_passed_and_do_not_count():
    network = Calls(lambda m, x, scale, shift: x[:, :, 1:, 1:] * scale + shift["by"])
    found = field_map(network, "last", torch.rand(1, 3, 9, 9), (torch.ones(8, 8), {"by": 2.0}))
    assert found == (Field(1, 1, 1),) * 2


def test_it_can_be_asked_in_inference_mode():
    with torch.inference_mode():
        found = of(lambda m, x: F.max_pool2d(x, 3, 2, 1))
    assert found == (Field(-1, 3, 2),) * 2


UNKNOWN = [
    (lambda m, x: x.flatten(1), "flatten in the model itself has no rule"),
    (lambda m, x: x.mean((2, 3)), "mean in the model itself has no rule"),
    (lambda m, x: F.adaptive_avg_pool2d(x, 1), "adaptive_avg_pool2d in the model itself"),
    (lambda m, x: F.adaptive_avg_pool2d(x, 7), "adaptive_avg_pool2d in the model itself"),
    (lambda m, x: F.interpolate(x, scale_factor=2), "interpolate in the model itself"),
    (lambda m, x: F.linear(x, torch.ones(24, 24)), "linear in the model itself has no rule"),
    (lambda m, x: x.flip(-1), "flip in the model itself has no rule"),
    (lambda m, x: torch.fft.ifft2(torch.fft.fft2(x)).real, "fft_fft2 in the model itself"),
    (lambda m, x: torch.fft.fft(x, dim=2).abs(), "fft_fft in the model itself has no rule"),
    (lambda m, x: torch.tensordot(x, torch.ones(24, 24), 1), "tensordot in the model itself"),
    (lambda m, x: x.mT, "mT in the model itself has no rule"),
    (lambda m, x: x @ x, "matmul in the model itself has no rule"),
    (lambda m, x: x[:, :, [1, 2]], "getitem in the model itself has no rule"),
    (lambda m, x: x[:, 1], "getitem in the model itself has no rule"),
    (lambda m, x: torch.cat([x, x], 2), "cat in the model itself has no rule"),
    (lambda m, x: F.conv_transpose2d(x, torch.ones(3, 1, 1, 1)), "conv_transpose2d in the"),
    (lambda m, x: x + x.flip(2).relu(), "flip in the model itself has no rule"),
    (lambda m, x: m.pool(x).relu(), "adaptive_max_pool2d in 'pool' has no rule"),
    (
        lambda m, x: x[..., :8, :8] + x[..., ::3, ::3],
        "add in the model itself puts together cells of different steps",
    ),
    (
        lambda m, x: x.transpose(2, 3),
        "its output (1, 3, 24, 24) is not (images, units, rows, columns)",
    ),
    (
        lambda m, x: torch.from_numpy(x.numpy().copy()),
        "it does not come from the image by functions of torch that can be watched",
    ),
]


@pytest.mark.parametrize(("function", "reason"), UNKNOWN, ids=numbers(UNKNOWN))
def test_without_a_rule_the_field_is_not_known(function, reason):
    with pytest.raises(LayerError) as error:
        of(function, pool=nn.AdaptiveMaxPool2d(5))
    start = "the receptive field of layer 'last' (Identity) is not known: "
    assert str(error.value).startswith(start + reason)
    assert str(error.value).endswith('; choose a layer before that, or upsample="resize"')


def test_a_layer_that_is_missing_silent_or_no_map_is_refused():
    image = torch.rand(1, 3, 24, 24)
    with pytest.raises(LayerError, match="has no layer 'lost'; the nearest names are 'last'"):
        field_map(Calls(lambda m, x: x), "lost", image)
    network = Calls(lambda m, x: x, beside=nn.ReLU())
    with pytest.raises(
        LayerError, match=r"^layer 'beside' \(ReLU\) does not run; choose another one$"
    ):
        field_map(network, "beside", image)
    with pytest.raises(LayerError, match="puts out a tuple, not a tensor"):
        of(lambda m, x: (x, x))


def test_the_network_is_left_as_it_was():
    network = Calls(
        lambda m, x: m.drop(m.norm(m.conv(x))),
        conv=nn.Conv2d(3, 4, 3),
        norm=nn.BatchNorm2d(4),
        drop=nn.Dropout(),
    ).train()
    network.norm.eval()
    before = {name: each.clone() for name, each in network.state_dict().items()}
    random = torch.get_rng_state()
    image = torch.zeros(1, 3, 9, 9, requires_grad=True)
    for layer in ("last", "conv"):
        assert field_map(network, layer, image) == (Field(0, 3, 1),) * 2
    with pytest.raises(LayerError):
        field_map(network, "lost", image)
    assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in network.modules()] == [True, True, True, False, True]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_anchors_on_a_grid_of_another_size_are_scaled_by_pixel_centres():
    # Cells of 4 pixels side by side: centres 1.5, 5.5, …; the grid has 3 pixels for 8.
    found = anchors(Field(0, 4, 4), 4, 16, 6)
    assert_close(found, torch.tensor([0.25, 1.75, 3.25, 4.75], dtype=torch.float64))
    # A step that the reduction does not divide, and a grid larger than the image.
    assert anchors(Field(0, 3, 3), 2, 12, 6).tolist() == [0.25, 1.75]
    assert anchors(Field(0, 1, 1), 2, 4, 8).tolist() == [0.5, 2.5]


def test_anchors_on_a_halved_grid_are_rounded_down_as_published():
    assert anchors(Field(-5, 8, 4), 3, 224, 112).tolist() == [-1, 1, 3]
    assert anchors(Field(0, 4, 4), 3, 12, 12).tolist() == [2, 6, 10]


@pytest.mark.real
def test_the_field_of_the_real_cifar_network_is_known(data):
    found = field_map(data.resnet20_cifar10(), "layer3", torch.rand(1, 3, 32, 32))
    # 7 convolutions at step 1, of which the last has stride 2 behind it, 6 at step 2, 5 at step 4.
    assert [field.step for field in found] == [4, 4]
    assert [field.size for field in found] == [1 + 2 * (1 + 6 + 1 + 2 * 6 + 4 * 5) for _ in found]
