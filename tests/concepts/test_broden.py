"""Broden's layout: written by hand, and broken in every way."""

import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from captum_blackbox.concepts import BrodenConcepts, Label
from captum_blackbox.errors import DataError, InputError

HEADER = "image,split,ih,iw,sh,sw,object,material,scene,part"


def write_png(path, codes):
    codes = np.asarray(codes)
    channels = (codes % 256, codes // 256, np.full_like(codes, 9))  # blue is not used
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(path)


def write_tables(root, **files):
    for name, text in files.items():
        (root / f"{name}.csv").write_text(text)


@pytest.fixture
def root(tmp_path):
    """Two images in the authors' layout; numbers with gaps, one above 255, parts in two layers."""
    generator = np.random.default_rng(0)
    for name in ("ade/one.jpg", "dtd/two.jpg"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (4, 8, 3), dtype=np.uint8)).save(path)
    write_png(tmp_path / "images/ade/one_object.png", [[0, 3, 300, 300], [7, 7, 0, 0]])
    write_png(tmp_path / "images/ade/one_part_1.png", [[11, 0, 11, 0], [0, 0, 0, 0]])
    write_png(tmp_path / "images/ade/one_part_2.png", [[11, 12, 0, 0], [0, 0, 0, 12]])
    write_tables(
        tmp_path,
        index=f"{HEADER}\n"
        "ade/one.jpg,train,4,8,2,4,ade/one_object.png,,21,ade/one_part_1.png;ade/one_part_2.png\n"
        "dtd/two.jpg,val,4,8,2,4,,,22;21;0,\n",
        label="number,name,category,frequency,coverage,syns\n"
        "3,car,object(5),5,1.5,auto\n"
        '7,"fabric, cloth",material(36);object(3),39,4.225474,cloth;tissue\n'
        "11,wheel,part(4),4,0.5,\n"
        "12,door,part(4);object(1),5,0.5,\n"
        "21,street-s,scene(2),2,2.0,\n"
        "22,beach-s,scene(1),1,1.0,\n"
        "300,tree,object(9),9,3.0,\n",
        category="name,first,last,count,frequency\n"
        "object,3,300,4,18\nmaterial,7,7,1,36\nscene,21,22,2,3\npart,11,12,2,8\n",
        c_object="code,number,name,frequency,coverage\n"
        "1,300,tree,9,3.0\n2,3,car,5,1.5\n3,7,fabric,3,0.9\n4,12,door,1,0.5\n",
        c_material="code,number,name,frequency,coverage\n1,7,fabric,36,3.3\n",
        c_scene="code,number,name,frequency,coverage\n1,21,street-s,2,2.0\n2,22,beach-s,1,1.0\n",
        c_part="code,number,name,frequency,coverage\n1,11,wheel,4,0.5\n2,12,door,4,0.5\n",
    )
    return tmp_path


def test_the_layout_is_read_as_documented(root):
    concepts = BrodenConcepts(root)
    assert concepts.categories == ("object", "material", "scene", "part")
    assert concepts.labels == (
        Label("car", "object"),
        Label("fabric, cloth", "material"),
        Label("wheel", "part"),
        Label("door", "part"),
        Label("street-s", "scene"),
        Label("beach-s", "scene"),
        Label("tree", "object"),
    )
    assert (concepts.image_size, concepts.mask_size, len(concepts)) == ((4, 8), (2, 4), 2)
    first, second = concepts.annotations(0), concepts.annotations(1)
    assert set(first) == {"object", "scene", "part"}  # the cell of material is empty
    assert first["object"].pixels.dtype == torch.int32
    assert first["object"].pixels.tolist() == [[[0, 1, 7, 7], [2, 2, 0, 0]]]
    # a pixel with one label in both layers has it in both; what counts it, counts it once
    layers = [[[3, 0, 3, 0], [0, 0, 0, 0]], [[3, 4, 0, 0], [0, 0, 0, 4]]]
    assert first["part"].pixels.tolist() == layers
    assert first["object"].whole == ()
    assert first["scene"].whole == (5,)
    assert first["scene"].pixels.shape == (0, 2, 4)
    assert set(second) == {"scene"}
    assert second["scene"].whole == (6, 5)  # the dominant one first; 0 is no label


def test_images_are_red_green_and_blue_in_0_to_1(root):
    concepts = BrodenConcepts(root)
    file = np.asarray(Image.open(root / "images/ade/one.jpg"))
    expected = torch.from_numpy(file.transpose(2, 0, 1).astype(np.float32) / 255)
    assert_close(concepts.image(0), expected, atol=0, rtol=0)
    Image.open(root / "images/ade/one.jpg").convert("L").save(root / "images/ade/one.jpg")
    grey = concepts.image(0)
    assert grey.shape == (3, 4, 8)
    assert torch.equal(grey[0], grey[2])


def test_a_label_counts_for_the_category_it_covers_most_in_and_ties_for_the_later(root):
    named = {label.name: label.category for label in BrodenConcepts(root).labels}
    assert named["fabric, cloth"] == "material"  # 3.3 against 0.9
    assert named["door"] == "part"  # 0.5 in object and in part, which comes later
    (root / "category.csv").write_text("name\npart\nmaterial\nscene\nobject\n")
    named = {label.name: label.category for label in BrodenConcepts(root).labels}
    assert named["door"] == "object"
    (root / "c_object.csv").write_text("number,coverage\n300,3\n3,1.5\n7,3.4\n12,0.4\n")
    with pytest.raises(DataError, match="no label of .* counts for \\['material'\\]"):
        BrodenConcepts(root)


def test_without_the_tables_of_coverage_the_frequencies_decide(root):
    (root / "c_part.csv").unlink()
    named = {label.name: label.category for label in BrodenConcepts(root).labels}
    assert named["fabric, cloth"] == "material"  # 36 against 3
    assert named["door"] == "part"  # 4 against 1
    text = (root / "label.csv").read_text().replace("part(4);object(1)", "part(1);object(1)")
    (root / "label.csv").write_text(text)
    assert BrodenConcepts(root).labels[3] == Label("door", "part")


def test_what_nobody_has_counted_may_stay_empty(root):
    for name in ("c_object", "c_material", "c_scene", "c_part"):
        rows = (root / f"{name}.csv").read_text().splitlines()
        emptied = [rows[0], *(row.rsplit(",", 1)[0] + "," for row in rows[1:])]
        (root / f"{name}.csv").write_text("\n".join(emptied))
    text = (root / "label.csv").read_text().replace("part(4);object(1)", "part;object")
    (root / "label.csv").write_text(text)
    named = {label.name: label.category for label in BrodenConcepts(root).labels}
    assert named["fabric, cloth"] == "material"  # 36 against 3
    assert named["door"] == "part"  # the later one


def test_a_choice_of_categories_leaves_out_labels_columns_and_images(root):
    concepts = BrodenConcepts(root, categories=["part", "object"])
    assert concepts.categories == ("object", "part")  # in the file's order, which decides ties
    assert [label.name for label in concepts.labels] == ["car", "wheel", "door", "tree"]
    assert len(concepts) == 1  # the second image has scenes alone
    annotations = concepts.annotations(0)
    assert annotations["object"].pixels.tolist() == [[[0, 1, 4, 4], [0, 0, 0, 0]]]  # fabric is none
    assert set(annotations) == {"object", "part"}


def test_a_split_has_its_images_only(root):
    assert len(BrodenConcepts(root, split="train")) == 1
    assert BrodenConcepts(root, split="val").annotations(0)["scene"].whole == (6, 5)
    with pytest.raises(InputError, match=r"no image of split 'test' .* splits \['train', 'val'\]"):
        BrodenConcepts(root, split="test")


def test_a_size_resizes_images_smoothly_and_masks_to_the_nearest(root):
    text = (root / "index.csv").read_text().replace("two.jpg,val,4,8,2,4", "two.jpg,val,6,8,3,4")
    (root / "index.csv").write_text(text)
    Image.new("RGB", (8, 6), (255, 0, 51)).save(root / "images/dtd/two.jpg", quality=100)
    message = r"differ in their sizes, such as .* give the size .* as size=224"
    with pytest.raises(InputError, match=message):
        BrodenConcepts(root)
    concepts = BrodenConcepts(root, size=(8, 4))
    assert (concepts.image_size, concepts.mask_size) == ((8, 4), (4, 2))
    assert concepts.image(0).shape == concepts.image(1).shape == (3, 8, 4)
    assert_close(concepts.image(1)[2].mean().item(), 0.2, atol=0.02, rtol=0)
    # each new pixel takes the old one under its centre: columns 1 and 3, rows 0 0 1 1
    assert concepts.annotations(0)["object"].pixels[0].tolist() == [[1, 7], [1, 7], [2, 0], [2, 0]]


@pytest.mark.parametrize("name", ["index", "label", "category"])
def test_a_missing_table_is_named(root, name):
    (root / f"{name}.csv").unlink()
    with pytest.raises(DataError, match=rf"there is no file '.*{name}\.csv'"):
        BrodenConcepts(root)


def test_missing_columns_are_named(root):
    text = (root / "index.csv").read_text()
    (root / "index.csv").write_text(text.replace("sh,sw,object", "sh,width,thing"))
    with pytest.raises(
        DataError, match=r"index\.csv' lacks the columns \['sw', 'object'\]; it has"
    ):
        BrodenConcepts(root)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "index",
            "val,4,8,2,4,,,",
            "val,4,8,2,4,,",
            r"line 3 of '.*index\.csv' has another number",
        ),
        (
            "index",
            "val,4,8",
            "val,4,x",
            r"whole number in the column 'iw' of '.*index\.csv', got 'x'",
        ),
        ("label", "\n11,", "\n3,", r"label\.csv' has the number 3 twice"),
        ("label", "12,door", "x,door", r"column 'number' of '.*label\.csv', got 'x'"),
        ("c_part", "4,0.5", "4,much", r"column 'coverage' of '.*c_part\.csv', got 'much'"),
    ],
)
def test_a_broken_table_is_named(root, file, old, new, message):
    path = root / f"{file}.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        BrodenConcepts(root)


def test_a_label_in_no_category_is_named(root):
    with (root / "label.csv").open("a") as file:
        file.write("301,lost,,0,0,\n")
    with pytest.raises(
        DataError, match=r"the label 301 of '.*label\.csv' is in none of \['object'"
    ):
        BrodenConcepts(root)


def test_an_unknown_category_is_refused(root):
    message = r"has the categories \['object', 'material', 'scene', 'part'\], got \['color'\]"
    with pytest.raises(InputError, match=message):
        BrodenConcepts(root, categories=["color"])


def test_a_missing_image_or_mask_is_named(root):
    concepts = BrodenConcepts(root)
    (root / "images/ade/one_part_2.png").unlink()
    (root / "images/dtd/two.jpg").unlink()
    with pytest.raises(DataError, match=r"there is no file '.*ade/one_part_2\.png'"):
        concepts.annotations(0)
    with pytest.raises(DataError, match=r"there is no file '.*dtd/two\.jpg'"):
        concepts.image(1)
    assert concepts.image(0).shape == (3, 4, 8)  # neither waits for the other


@pytest.mark.parametrize("keep", [0, 20, -30])
def test_a_corrupt_image_or_mask_is_named(root, keep):
    concepts = BrodenConcepts(root)
    for name, read in [
        ("ade/one_object.png", concepts.annotations),
        ("ade/one.jpg", concepts.image),
    ]:
        path = root / "images" / name
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(DataError, match=rf"{name}' cannot be read as an image: "):
            read(0)


def test_a_mask_of_another_size_or_kind_is_named(root):
    concepts = BrodenConcepts(root)
    write_png(root / "images/ade/one_object.png", [[0, 3]])
    message = r"one_object\.png' has 1 × 2 pixels \(height × width\); 'index\.csv' says 2 × 4"
    with pytest.raises(DataError, match=message):
        concepts.annotations(0)
    Image.new("L", (4, 2)).save(root / "images/ade/one_object.png")
    with pytest.raises(DataError, match=r"one_object\.png' is an image of mode L; expected red"):
        concepts.annotations(0)
    Image.new("RGB", (5, 4)).save(root / "images/ade/one.jpg")
    with pytest.raises(DataError, match=r"one\.jpg' has 4 × 5 pixels .* says 4 × 8"):
        concepts.image(0)


def test_a_number_that_no_label_has_is_named(root):
    concepts = BrodenConcepts(root)
    for number in (4, 301, 65535):
        write_png(root / "images/ade/one_object.png", [[0, 3, number, 3]] * 2)
        message = rf"one_object\.png' holds the value {number}, which no label has; 'label\.csv'"
        with pytest.raises(DataError, match=message):
            concepts.annotations(0)
    text = (root / "index.csv").read_text().replace("22;21;0", "22;23")
    (root / "index.csv").write_text(text)
    with pytest.raises(
        DataError, match=r"row of 'dtd/two\.jpg' in 'index\.csv' holds the value 23"
    ):
        BrodenConcepts(root).annotations(1)


def test_a_spreadsheet_may_have_been_at_the_tables(root):
    expected = BrodenConcepts(root)
    for path in root.glob("*.csv"):
        text = (
            path.read_text().replace("part_1.png;", "part_1.png ; ").replace("22;21;", " 22; 21; ")
        )
        path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    found = BrodenConcepts(root)
    assert found.labels == expected.labels
    layers = found.annotations(0)["part"].pixels
    assert torch.equal(layers, expected.annotations(0)["part"].pixels)
    assert found.annotations(1)["scene"].whole == (6, 5)


def test_a_number_0_alone_is_no_label(root):
    text = (root / "index.csv").read_text().replace("22;21;0", "0; 0")
    (root / "index.csv").write_text(text)
    assert len(BrodenConcepts(root)) == 2
    assert len(BrodenConcepts(root, categories=["scene", "object"])) == 1


def test_a_fourth_channel_changes_nothing(root):
    path = root / "images/ade/one_object.png"
    before = BrodenConcepts(root).annotations(0)["object"].pixels
    with Image.open(path) as file:
        four = file.convert("RGBA")
    four.putalpha(7)
    four.save(path)
    assert torch.equal(BrodenConcepts(root).annotations(0)["object"].pixels, before)


def test_a_palette_changes_nothing(root):
    path = root / "images/ade/one_object.png"
    before = BrodenConcepts(root).annotations(0)["object"].pixels
    Image.open(path).quantize(256).save(path)
    with Image.open(path) as file:
        assert file.mode == "P"
    assert torch.equal(BrodenConcepts(root).annotations(0)["object"].pixels, before)


def test_the_digest_tells_a_change_of_files_or_settings(root):
    before = BrodenConcepts(root).digest()
    assert BrodenConcepts(root).digest() == before
    assert BrodenConcepts(root, size=4).digest() != before
    assert BrodenConcepts(root, split="val").digest() != before
    path = root / "images/ade/one_part_2.png"
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    changed = BrodenConcepts(root).digest()
    assert changed != before
    path.unlink()
    assert BrodenConcepts(root).digest() not in {before, changed}
    train, val = (BrodenConcepts(root, split=split).digest() for split in ("train", "val"))
    os.utime(root / "images/dtd/two.jpg", ns=(0, 0))
    assert BrodenConcepts(root, split="train").digest() == train  # it is of the other split
    assert BrodenConcepts(root, split="val").digest() != val


def test_it_can_be_sent_to_a_worker(root):
    concepts = pickle.loads(pickle.dumps(BrodenConcepts(root)))
    assert concepts.annotations(0)["scene"].whole == (5,)


def test_an_index_beyond_the_images_is_an_index_error(root):
    with pytest.raises(IndexError, match="there are 2 images, got index 2"):
        _ = BrodenConcepts(root)[2]
