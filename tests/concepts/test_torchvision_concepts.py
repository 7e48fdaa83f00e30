"""The real classes of torchvision, over tiny data sets in the layouts on disk that they expect."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets

from captum_blackbox.concepts import Label, TorchvisionConcepts
from captum_blackbox.errors import DataError, InputError

VALUES = np.array([[0, 1], [20, 255]], dtype=np.uint8).repeat(4, 0).repeat(6, 1)  # 8 × 12


def write_image(path, color=(255, 0, 51)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), color).save(path, quality=100)


def write_mask(path, values=VALUES, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if mode == "P":
        image = Image.fromarray(values).convert("P")
        image.putdata(values.ravel().tolist())
    image.save(path)


@pytest.fixture
def voc(tmp_path):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("2007_000001", "2007_000002"):
        write_image(base / "JPEGImages" / f"{name}.jpg")
        write_mask(base / "SegmentationClass" / f"{name}.png", mode="P")
    listing = base / "ImageSets" / "Segmentation" / "train.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("2007_000001\n2007_000002\n")
    return datasets.VOCSegmentation(tmp_path, year="2012", image_set="train")


@pytest.fixture
def pets(tmp_path):
    base = tmp_path / "oxford-iiit-pet"
    trimap = np.array([[1, 2], [3, 3]], dtype=np.uint8).repeat(4, 0).repeat(6, 1)
    for name in ("Abyssinian_1", "shiba_inu_7"):
        write_image(base / "images" / f"{name}.jpg")
        write_mask(base / "annotations" / "trimaps" / f"{name}.png", trimap)
    listing = "Abyssinian_1 1 1 1\nshiba_inu_7 2 2 1\n"
    (base / "annotations" / "trainval.txt").write_text(listing)
    return lambda kinds: datasets.OxfordIIITPet(tmp_path, target_types=kinds)


@pytest.fixture
def cityscapes(tmp_path):
    ids = np.array([[7, 33], [4, 0]], dtype=np.uint8).repeat(4, 0).repeat(6, 1)
    name = "ulm_000000_000019"
    write_image(tmp_path / "leftImg8bit/train/ulm" / f"{name}_leftImg8bit.png")
    for kind in ("labelIds", "instanceIds"):
        write_mask(tmp_path / "gtFine/train/ulm" / f"{name}_gtFine_{kind}.png", ids)
    return lambda kind: datasets.Cityscapes(tmp_path, split="train", target_type=kind)


@pytest.fixture
def sbd(tmp_path):
    write_image(tmp_path / "img" / "2008_1.jpg")
    (tmp_path / "cls").mkdir()
    inner = np.empty((1,), dtype=[("Segmentation", object), ("Boundaries", object)])
    inner["Segmentation"][0] = np.minimum(VALUES, 20)
    inner["Boundaries"][0] = np.zeros((20, 1))
    savemat(tmp_path / "cls" / "2008_1.mat", {"GTcls": inner})
    (tmp_path / "train.txt").write_text("2008_1\n")
    return lambda mode: datasets.SBDataset(tmp_path, image_set="train", mode=mode)


class Pairs(Dataset):
    """A data set of one's own."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def names_at(concepts, annotation):
    """The names at the four corners of an annotation's first layer."""
    corners = annotation.pixels[0, :: concepts.mask_size[0] - 1, :: concepts.mask_size[1] - 1]
    return ["" if n == 0 else concepts.labels[n - 1].name for n in corners.flatten().tolist()]


def test_voc_brings_its_names(voc):
    concepts = TorchvisionConcepts(voc, size=(8, 12))
    assert (len(concepts), len(concepts.labels), concepts.mask_size) == (2, 21, (4, 6))
    image, annotations = concepts[1]
    assert_close(image[:, 4, 6], torch.tensor([1, 0, 0.2]), atol=0.02, rtol=0)
    assert names_at(concepts, annotations["object"]) == ["background", "aeroplane", "tvmonitor", ""]
    assert annotations["object"].pixels.dtype == torch.int32
    assert torch.equal(annotations["object"].pixels, concepts.annotations(1)["object"].pixels)
    assert torch.equal(image, concepts.image(1))


def test_the_background_can_be_left_out_and_names_replaced(voc):
    concepts = TorchvisionConcepts(voc, size=8, ignore=[0, 255])
    assert len(concepts.labels) == 20
    assert names_at(concepts, concepts.annotations(0)["object"]) == [
        "",
        "aeroplane",
        "tvmonitor",
        "",
    ]
    own = TorchvisionConcepts(
        voc, size=8, names={1: "thing", 20: "thing"}, ignore=[0, 255], category="kind"
    )
    assert own.labels == (Label("thing", "kind"),)
    assert names_at(own, own.annotations(0)["kind"]) == ["", "thing", "thing", ""]


def test_sbd_brings_its_names(sbd):
    concepts = TorchvisionConcepts(sbd("segmentation"), size=8)
    found = names_at(concepts, concepts.annotations(0)["object"])
    assert found == ["background", "aeroplane", "tvmonitor", "tvmonitor"]
    with pytest.raises(InputError, match='SBDataset yields .* make it with mode="segmentation"'):
        TorchvisionConcepts(sbd("boundaries"), size=8)


def test_of_cityscapes_the_evaluated_classes_are_named(cityscapes):
    for kind in ("semantic", ["instance", "semantic"]):
        concepts = TorchvisionConcepts(cityscapes(kind), size=8)
        assert len(concepts.labels) == 19
        found = names_at(concepts, concepts.annotations(0)["object"])
        assert found == ["road", "bicycle", "", ""]
    with pytest.raises(InputError, match='Cityscapes yields .* with target_type="semantic"'):
        TorchvisionConcepts(cityscapes("instance"), size=8)


def test_pets_have_three_regions_and_on_request_a_breed(pets):
    concepts = TorchvisionConcepts(pets("segmentation"), size=8)
    assert concepts.categories == ("object",)
    found = names_at(concepts, concepts.annotations(0)["object"])
    assert found == ["pet", "background", "border", "border"]
    both = TorchvisionConcepts(pets(["category", "segmentation", "binary-category"]), size=8)
    assert both.categories == ("breed", "object", "species")
    annotations = both.annotations(1)
    assert [both.labels[n - 1].name for n in annotations["breed"].whole] == ["Shiba Inu"]
    assert [both.labels[n - 1].name for n in annotations["species"].whole] == ["Dog"]
    assert annotations["breed"].pixels.shape == (0, 4, 4)
    assert names_at(both, annotations["object"]) == ["pet", "background", "border", "border"]
    with pytest.raises(InputError, match='make it with target_types="segmentation"'):
        TorchvisionConcepts(pets("category"), size=8)


def test_a_subset_keeps_the_names(voc):
    subset = Subset(Subset(voc, [1, 0]), [1])
    concepts = TorchvisionConcepts(subset, size=8)
    assert (len(concepts), len(concepts.labels)) == (1, 21)
    assert concepts.digest() != TorchvisionConcepts(Subset(voc, [1]), size=8).digest()
    assert concepts.digest() == TorchvisionConcepts(Subset(voc, [0]), size=8).digest()


@pytest.mark.parametrize(
    "mask", [torch.ones(8, 12).int(), torch.ones(1, 8, 12).byte(), Image.new("L", (12, 8), 1)]
)
@pytest.mark.parametrize(
    "image", [torch.rand(3, 8, 12), torch.ones(1, 8, 12).byte(), Image.new("L", (12, 8))]
)
def test_any_pair_of_image_and_mask_will_do_with_names(image, mask):
    concepts = TorchvisionConcepts(Pairs((image, mask)), names=["sky"], size=(4, 6))
    assert torch.equal(concepts.image(0), concepts.image(0))  # a Pillow image is not closed
    image, annotations = concepts[0]
    assert image.shape == (3, 4, 6)
    assert image.dtype == torch.float32
    assert annotations["object"].pixels.tolist() == [[[1, 1, 1], [1, 1, 1]]]


def test_an_unknown_data_set_needs_names():
    pairs = Pairs((torch.rand(3, 8, 8), torch.ones(8, 8).int()))
    with pytest.raises(InputError, match=r"names of Pairs are not known; give them, as names=\{1:"):
        TorchvisionConcepts(pairs, size=8)


PICTURE = torch.rand(3, 8, 12)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (PICTURE, "the item 0 of the data set is no pair of an image and a mask"),
        ((PICTURE, torch.ones(8, 12)), r"item 0 of the data set is a Tensor of shape \(8, 12\) and float32"),
        ((PICTURE, torch.ones(3, 8, 12).int()), r"of shape \(3, 8, 12\) and int32; expected a mask"),
        ((PICTURE, Image.new("RGB", (12, 8))), "item 0 of the data set is an image of mode RGB"),
        ((PICTURE, torch.full((8, 12), 4)), "'object' of item 0 of the data set holds the value 4"),
        ((PICTURE, torch.ones(12, 8).int()), "has 12 × 8 pixels .* its image 8 × 12"),
        (("a.jpg", torch.ones(8, 12).int()), "the image 0 of the data set is a str; expected a Pillow"),
    ],
)  # fmt: skip
def test_what_a_data_set_must_not_yield_is_named(item, message):
    concepts = TorchvisionConcepts(Pairs(item), names=["sky"], size=8)
    with pytest.raises(DataError, match=message):
        _ = concepts[0]


def test_a_missing_or_broken_file_is_named(voc, tmp_path):
    concepts = TorchvisionConcepts(voc, size=8)
    base = tmp_path / "VOCdevkit" / "VOC2012"
    mask = base / "SegmentationClass" / "2007_000001.png"
    mask.write_bytes(mask.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"item 0 .* cannot be read: .*2007_000001\.png"):
        concepts.annotations(0)
    assert concepts.image(0).shape == (3, 8, 8)
    (base / "JPEGImages" / "2007_000002.jpg").unlink()
    with pytest.raises(
        DataError, match=r"item 1 of the data set cannot be read: .*2007_000002\.jpg"
    ):
        _ = concepts[1]


def test_a_broken_file_that_a_data_set_only_opens_is_named(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    with Image.open(path) as opened:
        concepts = TorchvisionConcepts(
            Pairs((opened, torch.ones(8, 12).int())), names=["sky"], size=8
        )
        with pytest.raises(DataError, match=r"the image 0 .* cannot be read: '.*photo\.png': "):
            concepts.image(0)


def test_the_digest_tells_a_change_of_files_or_settings(voc, tmp_path):
    before = TorchvisionConcepts(voc, size=8).digest()
    assert TorchvisionConcepts(voc, size=8).digest() == before
    assert TorchvisionConcepts(voc, size=6).digest() != before
    assert TorchvisionConcepts(voc, size=8, ignore=[0, 255]).digest() != before
    path = tmp_path / "VOCdevkit/VOC2012/SegmentationClass/2007_000002.png"
    write_mask(path, VALUES[::-1].copy())
    assert TorchvisionConcepts(voc, size=8).digest() != before


def test_the_digest_of_a_data_set_without_files_is_that_of_its_contents():
    def digest(value):
        items = [(PICTURE, torch.full((8, 12), each)) for each in (1, value, 0)]
        return TorchvisionConcepts(Pairs(*items), names=["a", "b"], size=8).digest()

    assert digest(1) == digest(1) != digest(2)


def test_it_can_be_sent_to_a_worker(voc):
    concepts = pickle.loads(pickle.dumps(TorchvisionConcepts(voc, size=8)))
    (_, annotations), _ = DataLoader(concepts, batch_size=None, num_workers=1)
    assert annotations["object"].pixels.shape == (1, 4, 4)


def test_an_index_beyond_the_images_is_an_index_error(voc):
    with pytest.raises(IndexError, match="there are 2 images, got index -1"):
        _ = TorchvisionConcepts(voc, size=8)[-1]
