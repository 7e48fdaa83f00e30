"""Images and masks of one's own: tensors, files, folders; and what does not fit."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torch.utils.data import DataLoader

from captum_blackbox.concepts import SCENE_CONCEPTS, Label, MaskConcepts, Scenes
from captum_blackbox.errors import DataError, InputError

IMAGES = torch.rand(3, 3, 4, 6, generator=torch.Generator().manual_seed(1))
MASKS = torch.tensor([0, 1, 2]).view(3, 1, 1).repeat(1, 4, 6)


@pytest.fixture
def folder(tmp_path):
    """Two photographs with masks beside them, 8 and 16 bits."""
    random = np.random.default_rng(0)
    for name in ("000", "001"):
        pixels = random.integers(0, 256, (6, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg")
    values = np.array([[0, 1], [200, 1], [200, 0]], dtype=np.uint8).repeat(2, 0).repeat(2, 1)
    Image.fromarray(values).save(tmp_path / "000.png")
    Image.fromarray(np.full((6, 4), 1000, dtype=np.uint16)).save(tmp_path / "001.png")
    names = {"0": "unlabeled", "1": "person", "200": "rug", "1000": "sky"}
    (tmp_path / "classes.json").write_text(json.dumps(names))
    return tmp_path


def test_a_value_stands_for_the_name_at_its_place():
    concepts = MaskConcepts(IMAGES, MASKS, ["sea", "sky"])
    assert concepts.labels == (Label("sea", "object"), Label("sky", "object"))
    assert (concepts.image_size, concepts.mask_size) == ((4, 6), (4, 6))
    for index, (image, annotations) in enumerate(concepts):
        assert torch.equal(image, IMAGES[index])
        pixels = annotations["object"].pixels
        assert pixels.dtype == torch.int32
        assert torch.equal(pixels, MASKS[index : index + 1].int())
        assert annotations["object"].whole == ()


def test_a_mapping_names_any_values_and_the_same_name_is_one_label():
    masks = torch.tensor([[[7, -1], [300, 9]]])
    names = {7: "cat", 300: "dog", -1: "cat"}
    concepts = MaskConcepts(IMAGES[:1, :, :4, :4], masks, names, ignore=[9])
    assert concepts.labels == (Label("cat", "object"), Label("dog", "object"))
    assert concepts.annotations(0)["object"].pixels.tolist() == [[[1, 1], [2, 0]]]


def test_zero_is_a_label_only_if_it_is_named_and_not_ignored():
    named = MaskConcepts(IMAGES, MASKS, {0: "road", 1: "sea", 2: "sky"})
    assert named.annotations(0)["object"].pixels.unique().tolist() == [1]
    ignored = MaskConcepts(IMAGES, MASKS, {0: "road", 1: "sea", 2: "sky"}, ignore=[0, 2])
    assert ignored.labels == (Label("sea", "object"),)
    assert [ignored.annotations(i)["object"].pixels.max().item() for i in range(3)] == [0, 1, 0]


def test_categories_share_one_numbering_and_a_vector_labels_whole_images():
    kinds = {"object": MASKS, "scene": torch.tensor([2, 0, 1], dtype=torch.uint8)}
    names = {"object": {1: "sea", 2: "sky"}, "scene": ["beach", "street"]}
    concepts = MaskConcepts(IMAGES, kinds, names)
    assert [label.name for label in concepts.labels] == ["sea", "sky", "beach", "street"]
    assert concepts.label_categories().tolist() == [0, 0, 1, 1]
    scenes = [concepts.annotations(index)["scene"] for index in range(3)]
    assert [scene.whole for scene in scenes] == [(4,), (), (3,)]
    assert scenes[0].pixels.shape == (0, 4, 6)
    assert scenes[0].pixels.dtype == torch.int32


def test_the_masks_of_scenes_are_read_as_they_are():
    scenes = Scenes(3)
    masks = {kind: scenes.masks(kind) for kind in SCENE_CONCEPTS}
    concepts = MaskConcepts(scenes.images, masks, SCENE_CONCEPTS)
    for index, (_, annotations) in enumerate(concepts):
        for kind, names in SCENE_CONCEPTS.items():
            there = annotations[kind].pixels.unique().tolist()
            found = {concepts.labels[number - 1] for number in there if number}
            values = masks[kind][index].unique().tolist()
            assert found == {Label(names[value - 1], kind) for value in values if value}


def test_bytes_become_numbers_in_0_to_1_and_sizes_are_changed_on_request():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).repeat(1, 1, 4, 8)
    masks = torch.arange(8).repeat(1, 4, 1)
    concepts = MaskConcepts(images, masks, list("abcdefg"), size=(2, 4), mask_size=(1, 2))
    assert_close(concepts.image(0), torch.tensor([0, 0.2, 1]).view(3, 1, 1).expand(3, 2, 4))
    assert concepts.annotations(0)["object"].pixels.tolist() == [[[2, 6]]]


def test_files_and_pillow_images_are_read_when_they_are_asked_for(folder):
    files = [folder / "000.jpg", str(folder / "001.jpg")]
    drawn = [folder / "000.png", Image.new("L", (4, 6), 1)]
    concepts = MaskConcepts(files, drawn, {1: "person", 200: "rug"}, size=(6, 4))
    assert concepts.mask_size == (3, 2)
    with Image.open(files[0]) as file:
        pixels = np.asarray(file).transpose(2, 0, 1) / np.float32(255)
    assert_close(concepts.image(0), torch.from_numpy(pixels), atol=0, rtol=0)
    assert concepts.annotations(0)["object"].pixels.tolist() == [[[0, 1], [2, 1], [2, 0]]]
    assert concepts.annotations(1)["object"].pixels.unique().tolist() == [1]


def test_a_folder_is_read_with_its_names(folder):
    concepts = MaskConcepts.from_folder(folder, size=8, mask_size=(3, 2))
    assert [label.name for label in concepts.labels] == ["person", "rug", "sky"]
    assert concepts.image(1).shape == (3, 8, 8)
    assert concepts.annotations(0)["object"].pixels.tolist() == [[[0, 1], [2, 1], [2, 0]]]
    assert concepts.annotations(1)["object"].pixels.unique().tolist() == [3]


def test_the_masks_may_lie_in_a_folder_of_their_own(folder, tmp_path_factory):
    photographs = tmp_path_factory.mktemp("photographs")
    for name in ("000", "001"):
        Image.new("RGB", (4, 6)).save(photographs / f"{name}.png")
    names = {1: "person", 200: "rug", 1000: "sky"}
    concepts = MaskConcepts.from_folder(photographs, names, size=8, masks=folder)
    assert len(concepts) == 2
    assert concepts.annotations(1)["object"].pixels.unique().tolist() == [3]


def test_a_palette_counts_by_its_positions(folder):
    image = Image.new("P", (4, 6), 1)
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(folder / "000.png")
    concepts = MaskConcepts.from_folder(folder, size=8)
    assert concepts.annotations(0)["object"].pixels.unique().tolist() == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGES, MASKS[:2], ["a", "b"]), "there are 3 images and 2 masks of 'object'"),
        ((IMAGES[:0], MASKS[:0], ["a", "b"]), "there is no image"),
        ((IMAGES[:, :1], MASKS, ["a", "b"]), r"expected images (N, 3, H, W), got (3, 1, 4, 6)"),
        ((IMAGES, MASKS[:, None], ["a", "b"]), r"expected masks (N, h, w) or (N,), got (3, 1, 4, 6)"),
        ((IMAGES, MASKS.float(), ["a", "b"]), "masks of 'object' hold whole numbers, got torch.float32"),
        (
            (IMAGES, MASKS, ["a"]),
            "the mask 2 of 'object' holds the value 2, which no label has; name it in names, or list it in ignore",
        ),
        (
            (IMAGES, MASKS.mT.contiguous(), ["a", "b"]),
            "the mask 0 of 'object' has 6 × 4 pixels (height × width) and its image 4 × 6: they do not show the same",
        ),
        (
            (IMAGES, {"scene": torch.tensor([1, 0, 2])}, {"scene": ["a"]}),
            "the mask 2 of 'scene' holds the value 2, which no label has",
        ),
        ((IMAGES, MASKS, {1 << 24: "a"}), "expected values below 16777216, 24 bits, got 16777216"),
        ((IMAGES - 0.5, MASKS, ["a", "b"]), "leave the normalisation to the model"),
        ((IMAGES.new_full((3, 3, 4, 6), torch.nan), MASKS, ["a", "b"]), "expected images in [0, 1], got values from nan"),
        ((IMAGES.int(), MASKS, ["a", "b"]), "expected images as uint8 or float in [0, 1], got torch.int32"),
        ((IMAGES, MASKS, []), "names has no name for a value that is not ignored"),
        ((IMAGES, {"a": MASKS}, {"b": ["x"]}), "masks has the categories ['a']; names is a mapping with the same, got ['b']"),
        (
            (IMAGES, {"a": MASKS, "b": MASKS[:, :2, :3]}, {"a": ["x", "y"], "b": ["x", "y"]}),
            "the masks differ in their sizes, [(2, 3), (4, 6)]; give the size that they are to be resized to, as mask_size=112",
        ),
        ((["a.jpg"], ["a.png"], ["x"]), "images from files are resized to one size; give it, as size=224"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(InputError) as caught:
        MaskConcepts(*arguments)
    assert message in str(caught.value)


def test_a_size_is_positive():
    with pytest.raises(InputError, match=r"size is a number of pixels, or two .*, got 0"):
        MaskConcepts(IMAGES, MASKS, ["a", "b"], size=0)


def test_a_value_without_a_name_is_named_with_its_file(folder):
    concepts = MaskConcepts.from_folder(folder, ["person"], size=8, ignore=(0, 200))
    assert concepts.annotations(0)["object"].pixels.max() == 1
    with pytest.raises(
        DataError, match=r"001\.png' holds the value 1000, which no label has; name"
    ):
        concepts.annotations(1)


def test_broken_and_missing_files_are_named(folder):
    concepts = MaskConcepts.from_folder(folder, size=8)
    (folder / "000.png").write_bytes((folder / "000.png").read_bytes()[:50])
    (folder / "001.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"000\.png' cannot be read as an image"):
        concepts.annotations(0)
    with pytest.raises(DataError, match=r"001\.jpg' cannot be read as an image"):
        concepts.image(1)
    Image.new("RGB", (4, 6)).save(folder / "000.png")
    with pytest.raises(
        DataError, match=r"000\.png' is an image of mode RGB; expected a mask of one"
    ):
        concepts.annotations(0)
    Image.new("L", (6, 4)).save(folder / "000.png")
    with pytest.raises(DataError, match=r"000\.png' has 4 × 6 pixels .* its image 6 × 4"):
        concepts.annotations(0)
    (folder / "000.png").unlink()
    with pytest.raises(DataError, match=r"there is no file '.*000\.png'"):
        concepts.annotations(0)


def test_a_folder_that_cannot_be_read_is_explained(folder, tmp_path_factory):
    with pytest.raises(DataError, match="there is no folder '.*nowhere'"):
        MaskConcepts.from_folder(folder / "nowhere", size=8)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(DataError, match=r"empty0' holds no image that ends in \.jpeg, \.jpg"):
        MaskConcepts.from_folder(empty, size=8)
    (folder / "001.png").unlink()
    message = r"1 of 2 images have no mask; the first that is missing is '.*001\.png'"
    with pytest.raises(DataError, match=message):
        MaskConcepts.from_folder(folder, size=8)
    Image.new("L", (4, 6)).save(folder / "001.png")
    (folder / "classes.json").write_text("[1, 2]")
    with pytest.raises(DataError, match=r"classes\.json' holds no names such as"):
        MaskConcepts.from_folder(folder, size=8)
    (folder / "classes.json").unlink()
    with pytest.raises(DataError, match=r"no file '.*classes\.json' with the names; write it or"):
        MaskConcepts.from_folder(folder, size=8)


def test_the_digest_tells_a_change_of_values_names_or_files(folder):
    seen = [
        MaskConcepts(IMAGES, MASKS, ["a", "b"]),
        MaskConcepts(IMAGES.sqrt(), MASKS, ["a", "b"]),
        MaskConcepts(IMAGES, 2 - MASKS, ["a", "b"]),
        MaskConcepts(IMAGES, MASKS, ["a", "c"]),
        MaskConcepts(IMAGES, MASKS, ["a", "b"], ignore=[0, 1]),
        MaskConcepts(IMAGES, MASKS, ["a", "b"], size=3),
        MaskConcepts.from_folder(folder, size=8),
    ]
    digests = [concepts.digest() for concepts in seen]
    assert len(set(digests)) == len(digests)
    assert MaskConcepts(IMAGES.clone(), MASKS, ["a", "b"]).digest() == digests[0]
    assert MaskConcepts.from_folder(folder, size=8).digest() == digests[-1]
    Image.new("L", (4, 6), 1).save(folder / "001.png")
    assert MaskConcepts.from_folder(folder, size=8).digest() != digests[-1]
    drawn = [[Image.new("L", (2, 2), value)] for value in (0, 1)]
    first, second = (MaskConcepts(IMAGES[:1], each, ["a"], size=2).digest() for each in drawn)
    assert first != second


def test_it_can_be_sent_to_a_worker(folder):
    concepts = pickle.loads(pickle.dumps(MaskConcepts.from_folder(folder, size=8)))
    loader = DataLoader(concepts, batch_size=None, num_workers=1)
    loaded = [annotations["object"].pixels.unique().tolist() for _, annotations in loader]
    assert loaded == [[0, 1, 2], [3]]


@pytest.mark.real
def test_the_photographs_with_masks_are_read(data):
    folder = data.__spec__.origin.replace("networks.py", "masks")
    concepts = MaskConcepts.from_folder(folder, size=224)
    assert len(concepts) == 100
    seen = set()
    for image, annotations in concepts:
        assert image.shape == (3, 224, 224)
        assert annotations["object"].pixels.shape == (1, 112, 112)
        seen |= set(annotations["object"].pixels.unique().tolist())
    assert {"person", "sky-other-merged"} <= {concepts.labels[n - 1].name for n in seen if n}


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_grey_images_of_16_bits_keep_their_shades(tmp_path, kind):
    path = tmp_path / f"grey.{kind}"
    Image.fromarray(np.array([[0, 13107], [52428, 65535]], dtype=np.uint16)).save(path)
    image = MaskConcepts([path], torch.ones(1, 2, 2).int(), ["sky"], size=2).image(0)
    expected = torch.tensor([[0, 0.2], [0.8, 1]]).expand(3, 2, 2)
    assert_close(image, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("kind", "value"), [(np.int32, 70_000), (np.float32, 0.5)])
def test_images_of_32_bits_are_refused(tmp_path, kind, value):
    path = tmp_path / "deep.tif"
    Image.fromarray(np.full((2, 2), value, dtype=kind)).save(path)
    concepts = MaskConcepts([path], torch.ones(1, 2, 2).int(), ["sky"], size=2)
    with pytest.raises(
        DataError, match=r"deep\.tif' is an image of mode [IF], 32 bits; expected 8"
    ):
        concepts.image(0)


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_a_photograph_is_turned_upright_and_its_mask_belongs_to_what_is_seen(tmp_path, kind):
    stored = Image.new("RGB", (6, 4), "blue")
    stored.paste("red", (0, 0, 2, 4))  # upright, 4 × 6 pixels, it is the upper third
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / f"photo.{kind}", exif=exif, quality=100)
    mask = np.zeros((6, 4), dtype=np.uint8)
    mask[:2] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    images, masks = [tmp_path / f"photo.{kind}"], [tmp_path / "mask.png"]
    concepts = MaskConcepts(images, masks, ["red"], size=(6, 4), mask_size=(6, 4))
    image, annotations = concepts[0]
    assert torch.equal(image[0] > 0.5, annotations["object"].pixels[0] == 1)
    lying = [Image.fromarray(np.ascontiguousarray(mask.T))]
    with pytest.raises(DataError, match="they do not show the same"):
        MaskConcepts(images, lying, ["red"], size=4).annotations(0)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (IMAGES.numpy(), MASKS, "expected images as one tensor .*, got ndarray; torch.from_numpy"),
        (list(IMAGES), MASKS, "expected images .*, got Tensor in a sequence;"),
        ("photos", MASKS, "expected images .*, got str;"),
        (IMAGES, MASKS.numpy(), "expected the masks of 'object' as one tensor .*, got ndarray;"),
    ],
)
def test_what_is_neither_a_tensor_nor_files_is_refused(images, masks, message):
    with pytest.raises(InputError, match=message):
        MaskConcepts(images, masks, ["sea", "sky"], size=4)


@pytest.mark.usefixtures("as_users_call")
def test_names_that_are_one_text_are_refused():
    with pytest.raises(InputError, match="names is a list of texts .*, got the text 'sky'"):
        MaskConcepts(IMAGES, MASKS, "sky")


def test_a_folder_may_hold_hidden_files_and_be_named_in_two_ways(folder, monkeypatch):
    (folder / "._000.jpg").write_bytes(b"what macOS leaves on other disks")
    text = (folder / "classes.json").read_text()
    (folder / "classes.json").write_text(text, encoding="utf-8-sig")
    assert len(MaskConcepts.from_folder(folder, size=4)) == 2
    monkeypatch.chdir(folder.parent)
    assert len(MaskConcepts.from_folder(folder, size=4, masks=folder.name)) == 2
