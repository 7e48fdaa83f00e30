"""COCO's panoptic format, written by hand."""

import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from captum_blackbox.concepts import Label, PanopticConcepts
from captum_blackbox.errors import DataError

SEGMENTS = np.array([[0, 7], [70000, 3000000]]).repeat(2, 0).repeat(3, 1)  # 4 × 6


@pytest.fixture
def files(tmp_path):
    for folder in ("images", "panoptic"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (6, 4), (255, 0, 0)).save(tmp_path / "images" / "01.jpg")
    channels = [SEGMENTS % 256, SEGMENTS // 256 % 256, SEGMENTS // 65536]
    pixels = np.stack(channels, axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "panoptic" / "01.png")
    segments = [
        {"id": 3000000, "category_id": 1, "iscrowd": 0},
        {"id": 7, "category_id": 187, "iscrowd": 0},
        {"id": 70000, "category_id": 1, "iscrowd": 1},
    ]
    content = {
        "images": [{"id": 9, "file_name": "01.jpg", "height": 4, "width": 6}],
        "annotations": [{"image_id": 9, "file_name": "01.png", "segments_info": segments}],
        "categories": [
            {"id": 1, "name": "person", "isthing": 1},
            {"id": 187, "name": "sky", "isthing": 0},
        ],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    return tmp_path, content


def opened(root, **settings):
    return PanopticConcepts(
        root / "images", root / "panoptic", root / "panoptic.json", size=(4, 6), **settings
    )


def rewritten(root, content):
    (root / "panoptic.json").write_text(json.dumps(content))
    return opened(root)


def test_segments_become_the_labels_of_their_classes(files):
    concepts = opened(files[0])
    assert concepts.labels == (Label("person", "object"), Label("sky", "object"))
    image, annotations = concepts[0]
    assert image.shape == (3, 4, 6)
    assert annotations["object"].pixels.tolist() == [[[0, 2, 2], [1, 1, 1]]]
    full = opened(files[0], mask_size=(4, 6), category="coco").annotations(0)["coco"].pixels
    naive = {0: 0, 7: 2, 70000: 1, 3000000: 1}
    assert full.tolist() == [[[naive[value] for value in row] for row in SEGMENTS.tolist()]]


@pytest.mark.parametrize("gone", [7, 3000000])
def test_a_segment_that_is_not_described_is_named(files, gone):
    root, content = files
    annotation = content["annotations"][0]
    annotation["segments_info"] = [s for s in annotation["segments_info"] if s["id"] != gone]
    concepts = rewritten(root, content)
    message = rf"01\.png' holds the segment {gone}, which '.*panoptic\.json' does not describe"
    with pytest.raises(DataError, match=message):
        concepts.annotations(0)


def test_what_the_json_file_lacks_is_named(files):
    root, content = files
    changed = json.loads(json.dumps(content))
    changed["annotations"][0]["segments_info"][0]["category_id"] = 5
    with pytest.raises(
        DataError, match=r"'01\.png' has a segment of the class 5, which 'categories'"
    ):
        rewritten(root, changed)
    del content["categories"]
    with pytest.raises(DataError, match=r"holds no panoptic annotations as COCO's: KeyError\('cat"):
        rewritten(root, content)
    (root / "panoptic.json").write_text("{")
    with pytest.raises(DataError, match=r"panoptic\.json' cannot be read as JSON"):
        opened(root)
    (root / "panoptic.json").unlink()
    with pytest.raises(DataError, match=r"there is no file '.*panoptic\.json'"):
        opened(root)


def test_broken_files_are_named(files):
    root, _ = files
    concepts = opened(root)
    mask = root / "panoptic" / "01.png"
    Image.new("RGB", (4, 6)).save(mask)
    with pytest.raises(DataError, match=r"01\.png' has 6 × 4 pixels .* its image 4 × 6"):
        concepts.annotations(0)
    mask.write_bytes(b"")
    with pytest.raises(DataError, match=r"01\.png' cannot be read as an image"):
        concepts.annotations(0)
    (root / "images" / "01.jpg").unlink()
    with pytest.raises(DataError, match=r"there is no file '.*01\.jpg'"):
        concepts.image(0)


def test_the_digest_tells_a_change_of_files_or_settings(files):
    root, content = files
    before = opened(root).digest()
    assert opened(root).digest() == before
    assert opened(root, mask_size=3).digest() != before
    os.utime(root / "panoptic" / "01.png", ns=(0, 0))
    touched = opened(root).digest()
    assert touched != before
    content["categories"][0]["name"] = "people"
    assert rewritten(root, content).digest() != touched


def test_it_can_be_sent_to_a_worker(files):
    concepts = pickle.loads(pickle.dumps(opened(files[0])))
    assert concepts.annotations(0)["object"].pixels.max() == 2
