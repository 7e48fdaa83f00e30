"""Concepts of any kind, written in Broden's layout and read back."""

import csv

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from captum_blackbox.concepts import (
    Annotation,
    BrodenConcepts,
    Concepts,
    Label,
    SceneConcepts,
    write_broden,
)
from captum_blackbox.errors import ArtifactError, DataError, InputError


class Hand(Concepts):
    """Random annotations: up to three layers, whole labels, and images without any."""

    def __init__(self, labels=700):
        kinds = ["part", "color", "scene"]
        super().__init__(
            kinds, [Label(f"n{i}, {i}", kinds[i % 3]) for i in range(labels)], (6, 4), (3, 2)
        )

    def __len__(self):
        return 5

    def image(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, 6, 4), generator=generator) / 255

    def annotations(self, index):
        if index == 4:
            return {}
        random = np.random.default_rng(index)
        own = {
            kind: np.arange(1 + k, len(self.labels) + 1, 3)
            for k, kind in enumerate(self.categories)
        }
        return {
            kind: Annotation(
                torch.from_numpy(
                    random.choice(np.r_[0, own[kind]], (random.integers(4), 3, 2)).astype(np.int32)
                ),
                tuple(random.choice(own[kind], random.integers(3), replace=False).tolist()),
            )
            for kind in self.categories
        }

    def digest(self):
        return "hand"


def test_what_is_written_is_read_back_identical(tmp_path):
    written = Hand()
    write_broden(tmp_path / "new", written, splits=["train", "val", "val", "train", "val"])
    read = BrodenConcepts(tmp_path / "new")
    assert (read.categories, read.labels) == (written.categories, written.labels)
    assert (read.image_size, read.mask_size) == (written.image_size, written.mask_size)
    seen = 0
    for index in range(len(written)):
        (image, annotations), (back, found) = written[index], read[index]
        assert_close(back, image, atol=1e-7, rtol=0)
        there = {k: a for k, a in annotations.items() if len(a.pixels) or a.whole}
        assert set(found) == set(there)
        for kind, annotation in there.items():
            assert torch.equal(found[kind].pixels, annotation.pixels)
            assert found[kind].whole == annotation.whole
            seen = max(seen, int(annotation.pixels.max()) if len(annotation.pixels) else 0)
    assert seen > 255  # green was needed
    assert len(BrodenConcepts(tmp_path / "new", split="val")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["new"]  # nothing is left behind


def test_the_tables_hold_frequency_and_coverage_counted_pixel_by_pixel(tmp_path):
    concepts = Hand(labels=9)
    write_broden(tmp_path / "new", concepts)
    for category in concepts.categories:
        rows = rows_of(tmp_path / "new" / f"c_{category}.csv")
        frequency, coverage = naive_counts(concepts, category)
        own = [i for i, label in enumerate(concepts.labels, 1) if label.category == category]
        assert sorted(int(row["number"]) for row in rows) == own
        for row in rows:
            number = int(row["number"])
            assert int(row["frequency"]) == frequency.get(number, 0)
            assert float(row["coverage"]) == pytest.approx(coverage.get(number, 0))
            assert row["name"] == concepts.labels[number - 1].name
        ranks = [int(row["frequency"]) for row in rows]
        assert ranks == sorted(ranks, reverse=True)
        assert [int(row["code"]) for row in rows] == list(range(1, len(rows) + 1))
    labels = rows_of(tmp_path / "new/label.csv")
    frequency, coverage = naive_counts(concepts, "color")
    assert labels[1]["category"] == f"color({frequency[2]})"
    assert float(labels[1]["coverage"]) == pytest.approx(coverage[2])
    categories = rows_of(tmp_path / "new/category.csv")
    assert [row["name"] for row in categories] == ["part", "color", "scene"]
    assert (categories[1]["first"], categories[1]["last"], categories[1]["count"]) == (
        "2",
        "8",
        "3",
    )
    assert int(categories[1]["frequency"]) == sum(frequency.values())


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def naive_counts(concepts, category):
    frequency, coverage = {}, {}
    for _, annotations in concepts:
        annotation = annotations.get(category, Annotation(torch.zeros(0, 3, 2)))
        for number in range(1, len(concepts.labels) + 1):
            pixels = sum(
                number in annotation.whole or number in annotation.pixels[:, row, column].tolist()
                for row in range(3)
                for column in range(2)
            )
            if pixels:
                frequency[number] = frequency.get(number, 0) + 1
                coverage[number] = coverage.get(number, 0) + pixels / 6
    return frequency, coverage


def test_a_folder_with_something_in_it_is_not_written_to(tmp_path):
    scenes = SceneConcepts(1, categories=["object"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(ArtifactError, match="full' exists and is not empty; choose another folder"):
        write_broden(tmp_path / "full", scenes)
    (tmp_path / "empty").mkdir()
    write_broden(tmp_path / "empty", scenes)
    assert len(BrodenConcepts(tmp_path / "empty")) == 1


def test_a_failure_leaves_no_folder(tmp_path):
    class Broken(Hand):
        def image(self, index):
            if index == 2:
                raise DataError("broken")
            return super().image(index)

    with pytest.raises(DataError, match="broken"):
        write_broden(tmp_path / "new", Broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a;b", "split", "a/b", "part(1)", ""])
def test_a_category_that_the_tables_cannot_hold_is_refused(tmp_path, name):
    concepts = SceneConcepts(1, categories=["object"])
    concepts.categories = (name,)
    with pytest.raises(InputError, match="cannot be written: it names files and columns"):
        write_broden(tmp_path / "new", concepts)


def test_the_number_of_splits_is_that_of_the_images(tmp_path):
    with pytest.raises(InputError, match="a split for each of 2 images, got 1"):
        write_broden(tmp_path / "new", SceneConcepts(2), splits=["train"])


def test_a_label_of_another_category_is_read_back_where_it_covers_most(tmp_path):
    class Wide(Hand):
        def annotations(self, index):
            return {
                "part": Annotation(torch.ones(1, 3, 2, dtype=torch.int32)),
                "color": Annotation(torch.ones(0, 3, 2, dtype=torch.int32), (1, 2)),
                "scene": Annotation(torch.tensor([[[2, 2], [2, 2], [1, 3]]], dtype=torch.int32)),
            }

    write_broden(tmp_path / "new", Wide(labels=6))
    read = BrodenConcepts(tmp_path / "new")
    # 1 covers part and color alike, of which color is the later; 2 covers more in color
    categories = " ".join(label.category for label in read.labels)
    assert categories == "color color scene part color scene"
    assert read.annotations(3)["scene"].pixels.tolist() == [[[2, 2], [2, 2], [1, 3]]]


def test_more_labels_than_two_bytes_count_are_refused(tmp_path):
    with pytest.raises(InputError, match="in two bytes: at most 65535, got 65536"):
        write_broden(tmp_path / "new", Hand(labels=65536))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot write '.*file/new': .*; choose a folder"):
        write_broden(tmp_path / "file" / "new", SceneConcepts(1))
