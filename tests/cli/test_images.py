"""Image files become what torchvision would make of them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import ResNet18_Weights, ViT_B_16_Weights, get_model_weights

from captum_blackbox.cli.image_batches import image_files
from captum_blackbox.cli.images import Preparation, choose_preparation, load_images
from captum_blackbox.cli.options import PresetName
from captum_blackbox.cli.results import write_json, write_text


def save(path, shape=(60, 80, 3), **settings):
    pixels = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path, **settings)


@pytest.mark.parametrize(
    "weights",
    [
        ResNet18_Weights.IMAGENET1K_V1,
        ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1,
        get_model_weights("efficientnet_b3").DEFAULT,
    ],
    ids=str,
)
def test_torchvision_s_weights_bring_their_own_preparation(tmp_path, weights):
    save(tmp_path / "a.png")
    preparation = choose_preparation(None, None, None, None, weights.transforms())
    with Image.open(tmp_path / "a.png") as image:
        expected = weights.transforms()(image)
    torch.testing.assert_close(
        load_images([tmp_path], preparation).inputs[0], expected, rtol=0, atol=1e-6
    )


def test_a_network_of_grey_images_takes_colours_as_grey():
    images = torch.rand(2, 3, 4, 4)
    grey = (images * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    found = Preparation(4, 4, (0.5,), (0.25,)).from_colour(images)
    torch.testing.assert_close(found, (grey - 0.5) / 0.25)


def test_the_imagenet_preset_is_torchvision_s_evaluation(tmp_path):
    save(tmp_path / "a.png")
    preset = choose_preparation(None, None, None, PresetName.IMAGENET)
    with Image.open(tmp_path / "a.png") as image:
        expected = ResNet18_Weights.IMAGENET1K_V1.transforms()(image)
    torch.testing.assert_close(
        load_images([tmp_path], preset).inputs[0], expected, rtol=0, atol=1e-6
    )


def test_options_win_over_a_preset():
    chosen = choose_preparation(64, None, "2,2,2", PresetName.HALF)
    assert chosen == Preparation(64, 64, (0.5, 0.5, 0.5), (2.0, 2.0, 2.0))


def test_only_the_imagenet_preset_and_named_weights_crop_a_margin_away():
    means, stds = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    alone = choose_preparation(64, "0,0,0", "1,1,1", None)
    assert (alone.size, alone.resize) == (64, 64)
    assert choose_preparation(64, None, None, PresetName.IMAGENET) == Preparation(
        64, 73, means, stds
    )
    assert str(alone) == (
        "shorter side 64 pixels (bilinear), centre 64 × 64, minus 0, 0, 0, divided by 1, 1, 1"
    )


def test_one_option_leaves_the_rest_to_named_weights():
    transforms = ResNet18_Weights.IMAGENET1K_V1.transforms()
    means, stds = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert choose_preparation(112, None, None, None, transforms) == Preparation(
        112, 128, means, stds
    )
    twos = choose_preparation(None, None, "2,2,2", None, transforms)
    assert twos == Preparation(224, 256, means, (2.0, 2.0, 2.0))
    half = choose_preparation(None, None, None, PresetName.HALF, transforms)
    assert half == Preparation(224, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_one_mean_makes_grey_images(tmp_path):
    save(tmp_path / "a.png")
    preparation = choose_preparation(16, "0.5", "0.25", None)
    loaded = load_images([tmp_path], preparation)
    assert loaded.inputs.shape == (1, 1, 16, 16)
    pictures = preparation.picture(tmp_path / "a.png")[None]
    torch.testing.assert_close(loaded.inputs, pictures * 4 - 2)
    torch.testing.assert_close(preparation.pictures(loaded.inputs), pictures)


def test_folders_are_read_in_order_and_to_any_depth(tmp_path):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / ".cache").mkdir()
    for name in ("c.png", "a.jpg", "b/deep/x.bmp", ".cache/hidden.png", ".hidden.png"):
        save(tmp_path / name)
    (tmp_path / "text.txt").write_text("no image")
    loaded = load_images([tmp_path], choose_preparation(16, "0,0,0", "1,1,1", None))
    assert loaded.names == ("a.jpg", "b/deep/x.bmp", "c.png")
    assert loaded.skipped == {str(tmp_path / "text.txt"): "not an image"}


def test_what_is_no_image_is_listed_even_beyond_the_limit(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / name)
    (tmp_path / "z.txt").write_text("no image")
    loaded = load_images([tmp_path], choose_preparation(16, "0", "1", None), limit=1)
    assert (loaded.names, loaded.left) == (("a.png",), 2)
    assert loaded.skipped == {str(tmp_path / "z.txt"): "not an image"}


def test_equal_names_of_two_folders_are_both_listed(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "z.txt").write_text("no image")
    save(tmp_path / "other" / "a.png")
    folders = [tmp_path / "one", tmp_path / "other"]
    loaded = load_images(folders, choose_preparation(16, "0", "1", None))
    assert loaded.skipped == {str(folder / "z.txt"): "not an image" for folder in folders}


def test_the_first_images_are_those_of_a_limit(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / name)
    preparation = choose_preparation(16, "0", "1", None)
    limited = load_images([tmp_path], preparation, limit=2)
    first = load_images([tmp_path], preparation).first(2)
    assert (first.names, first.left) == (limited.names, limited.left) == (("a.png", "b.png"), 1)
    torch.testing.assert_close(first.inputs, limited.inputs, rtol=0, atol=0)
    assert limited.first(2).left == 1


def test_a_photograph_is_turned_upright(tmp_path):
    turned = Image.fromarray(
        np.array([[255, 255], [0, 0]], dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    )
    exif = turned.getexif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "a.png", exif=exif)
    picture = load_images([tmp_path], choose_preparation(16, "0", "1", None)).inputs[0, 0]
    assert picture[0].mean() == 0
    assert picture[-1].mean() == 1


def test_a_grey_image_of_16_bits_is_not_clipped(tmp_path):
    values = np.full((8, 8), 257 * 51, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    preparation = Preparation(8, 8, (0.0,) * 3, (1.0,) * 3)
    torch.testing.assert_close(
        preparation.picture(tmp_path / "deep.png"), torch.full((3, 8, 8), 0.2)
    )


def test_a_name_that_is_not_utf8_can_be_written(tmp_path):
    odd, broken = "caf\udce9.png", "\udcff.txt"
    try:
        save(tmp_path / "a.png")
        (tmp_path / "a.png").rename(tmp_path / odd)
        (tmp_path / broken).write_bytes(b"no image")
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    preset = choose_preparation(None, None, None, PresetName.IMAGENET)
    found = load_images([tmp_path], preset)
    assert found.names == (r"caf\udce9.png",)
    assert load_images([tmp_path / odd], preset).names == found.names
    _, skipped = image_files([tmp_path])
    assert list(skipped) == list(found.skipped) == [str(tmp_path / r"\udcff.txt")]
    write_json(tmp_path / "a.json", {"names": found.names, **found.skipped})
    write_text(tmp_path / "a.html", f"of {tmp_path / odd}")  # as in what a run was told
    assert (tmp_path / "a.html").read_text().endswith(r"caf\udce9.png")
