"""Detectors are counted by both conventions, and tables of units survive a file."""

import csv
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captum_blackbox.dissection.unit_files import read_units, write_units
from captum_blackbox.dissection.units import Score, Unit, count_detectors
from captum_blackbox.errors import ArtifactError, DataError, InputError

CATEGORIES = ["object", "scene", "part", "material", "texture", "color"]

# IoU of the three units: object 0.25, 0.125, 0.05; part 0.05, 0.25, 0.04; color none, 0, 0.
CAR = Unit(
    0,
    "object",
    {
        "object": Score("car", 60, 40, 20),
        "part": Score("wheel", 52, 11, 3),
        "color": Score("", 0, 40, 0),
    },
)
WHEEL = Unit(
    1,
    "part",
    {
        "object": Score("car", 60, 30, 10),
        "part": Score("wheel", 52, 48, 20),
        "color": Score("red, dark", 9, 30, 0),
    },
)
DOG = Unit(
    2,
    "object",
    {
        "object": Score("dog", 15, 6, 1),
        "part": Score("wheel", 20, 6, 1),
        "color": Score("red, dark", 9, 6, 0),
    },
)
TABLE = [CAR, WHEEL, DOG]

# Detectors and unique detectors of each category, in the order of CATEGORIES; units with any;
# units and labels counted by the best concept only.
PUBLISHED = {
    "caffe_reference_imagenet": ([49, 5, 26, 4, 45, 6], [21, 4, 8, 1, 23, 4], 97, 50),
    "caffe_reference_places205": ([78, 17, 14, 4, 31, 2], [36, 12, 8, 1, 20, 2], 107, 60),
    "caffe_reference_places365": ([81, 21, 17, 3, 47, 2], [40, 13, 9, 2, 25, 2], 118, 72),
    "ResNet-152-model_imagenet": ([858, 494, 268, 49, 407, 3], [75, 89, 23, 8, 45, 2], 1325, 197),
    "ResNet-152-model_places365": (
        [774, 1045, 308, 19, 300, 2],
        [84, 188, 26, 5, 42, 2],
        1452,
        278,
    ),
}


def cells(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def records(path):
    header, *rows = cells(path)
    return [dict(zip(header, row, strict=True)) for row in rows]


@st.composite
def tables(draw):
    """Units with consistent tallies and their best category, of equals the later."""
    count = st.integers(0, 12)
    units = []
    for number in range(draw(st.integers(1, 6))):
        scores = {}
        for category in CATEGORIES[:3]:
            both = draw(count)
            label = draw(st.sampled_from(["a", 'b "2"', "c, d", "", "é\n"]))
            scores[category] = Score(label, both + draw(count), both + draw(count), both)
        best = max(reversed(scores), key=lambda each: scores[each].iou)
        units.append(Unit(number, best, scores))
    return units


def test_both_conventions_on_a_table_counted_by_hand():
    count = count_detectors(TABLE)
    assert count.concepts == {
        "object": {"car": (0, 1), "dog": (2,)},
        "part": {"wheel": (0, 1)},  # 0.04 is not above 0.04
        "color": {},
    }
    assert count.detectors == {"object": 3, "part": 2, "color": 0}
    assert count.unique == {"object": 2, "part": 1, "color": 0}
    assert (count.total_unique, count.units_with_any, count.units) == (3, 3, 3)
    best = count_detectors(TABLE, convention="best_only")
    assert best.concepts == {
        "object": {"car": (0,), "dog": (2,)},
        "part": {"wheel": (1,)},
        "color": {},
    }
    strict = count_detectors(TABLE, 0.2)
    assert strict.detectors == {"object": 1, "part": 1, "color": 0}
    assert strict.units_with_any == 2


def test_labels_come_by_count_and_then_by_their_best_score():
    def detector(number, label, both):
        return Unit(number, "object", {"object": Score(label, 50, 50, both)})

    units = [detector(0, "low", 20), detector(1, "high", 30), detector(2, "two", 10)]
    units.append(detector(3, "two", 11))
    assert list(count_detectors(units).concepts["object"]) == ["two", "high", "low"]


@given(tables(), st.floats(0, 0.9))
def test_counts_obey_their_laws(units, threshold):
    every = count_detectors(units, threshold)
    best = count_detectors(units, threshold, "best_only")
    for category in units[0].scores:
        assert best.unique[category] <= every.unique[category] <= every.detectors[category]
        assert best.detectors[category] <= every.detectors[category] <= len(units)
    assert best.units_with_any == every.units_with_any == sum(best.detectors.values())


def test_other_conventions_and_thresholds_are_refused(as_users_call):
    with pytest.raises(InputError) as caught:
        count_detectors(TABLE, convention="best")
    assert str(caught.value) == "convention is one of 'per_category', 'best_only', got 'best'"
    for threshold in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError) as caught:
            count_detectors(TABLE, threshold)
        assert str(caught.value) == f"iou_threshold must lie in [0, 1), got {threshold}"


def test_a_table_is_written_in_the_published_columns_best_first(tmp_path):
    path = tmp_path / "new" / "units.csv"
    write_units(path, TABLE, ["object", "part", "color"])
    lines = path.read_bytes().decode().split("\r\n")
    assert lines[0] == (
        "unit,category,label,score,"
        "object-label,object-truth,object-activation,object-intersect,object-iou,"
        "part-label,part-truth,part-activation,part-intersect,part-iou,"
        "color-label,color-truth,color-activation,color-intersect,color-iou"
    )
    assert lines[1] == "1,object,car,0.25,car,60,40.0,20,0.25,wheel,52,11.0,3,0.05,,0,40.0,0,0.0"
    assert [line.split(",")[0] for line in lines[2:]] == ["2", "3", ""]
    assert lines[2].endswith(',"red, dark",9,30.0,0,0.0')


@given(tables())
def test_what_is_written_is_read_back(tmp_path_factory, units):
    path = tmp_path_factory.mktemp("units") / "units.csv"
    write_units(path, reversed(units), list(units[0].scores))
    assert read_units(path) == units
    scores = [float(row["score"]) for row in records(path)]
    assert scores == sorted(scores, reverse=True)


def test_names_are_no_formulas_and_read_back(tmp_path):
    path = tmp_path / "units.csv"
    units = [Unit(0, "-part", {"-part": Score("=1+1", 60, 40, 20), "part": Score("'@", 9, 9, 0)})]
    write_units(path, units, ["-part", "part"])
    header, row = cells(path)
    assert header[4:6] == ["'-part-label", "'-part-truth"] and header[9] == "part-label"
    assert row[:5] == ["1", "'-part", "'=1+1", "0.25", "'=1+1"] and row[9] == "''@"
    assert read_units(path) == units


def test_columns_are_found_by_name_and_others_left_alone(tmp_path):
    path = tmp_path / "units.csv"
    write_units(path, TABLE, ["object", "part", "color"])
    rows = [[*row, "seen"] for row in cells(path)]
    order = list(range(len(rows[0])))
    random.Random(0).shuffle(order)
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([row[column] for column in order] for row in rows)
    assert read_units(path) == TABLE


def test_a_table_without_units_is_one(tmp_path):
    write_units(tmp_path / "units.csv", [], ["object"])
    assert read_units(tmp_path / "units.csv") == []


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("unit", "0", "column 'unit': expected a whole number from 1, got '0'"),
        ("unit", "two", "column 'unit': expected a number, got 'two'"),
        ("part-truth", "", "column 'part-truth': expected a number, got ''"),
        (
            "part-activation",
            "7.5",
            "column 'part-activation': expected a whole number from 0, got '7.5'",
        ),
        (
            "part-truth",
            "nan",
            "column 'part-truth': expected a whole number from 0, got 'nan'",
        ),
        (
            "part-truth",
            "-52",
            "column 'part-truth': expected a whole number from 0, got '-52'",
        ),
        (
            "part-intersect",
            "53",
            "column 'part-intersect': expected at most the truth, 52, got '53'",
        ),
        (
            "part-iou",
            "0.06",
            "column 'part-iou': expected 0.05, which follows from the pixels, got '0.06'",
        ),
        (
            "score",
            "nan",
            "column 'score': expected 0.25, which follows from the pixels, got 'nan'",
        ),
        (
            "category",
            "scene",
            "column 'category': expected one of 'object', 'part', 'color', got 'scene'",
        ),
        (
            "category",
            "part",
            "column 'category': expected the one with the highest IoU, got 'part'",
        ),
        ("label", "dog", "column 'label': expected 'car', as in column 'object-label', got 'dog'"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path, column, text, message):
    path = tmp_path / "units.csv"
    write_units(path, TABLE, ["object", "part", "color"])
    rows = cells(path)
    rows[1][rows[0].index(column)] = text
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(DataError) as caught:
        read_units(path)
    assert str(caught.value) == f"{str(path)!r}, row 2, {message}"


def test_what_is_no_table_is_refused(tmp_path):
    path = tmp_path / "units.csv"
    with pytest.raises(DataError) as caught:
        read_units(path)
    assert str(caught.value) == f"cannot read units from {str(path)!r}: No such file or directory"
    write_units(path, TABLE, ["object", "part"])
    whole = path.read_text()
    path.write_text(whole + "1,object\n")
    with pytest.raises(DataError) as caught:
        read_units(path)
    assert str(caught.value) == (
        f"{str(path)!r}, row 5: expected 14 cells, as in the header, got 2"
    )
    path.write_text(whole + whole.splitlines()[-1] + "\n")
    with pytest.raises(DataError) as caught:
        read_units(path)
    assert str(caught.value) == f"{str(path)!r} has unit 3 twice"
    for text, missing in (
        ("", "['unit', 'category', 'label', 'score'], found: []"),
        ("unit,category,label,score", "[], found: ['unit', 'category', 'label', 'score']"),
        (whole.replace("object-truth", "truth"), "['object-truth'], found: ['unit', "),
        (whole.replace("object-truth", "unit"), "['object-truth'], found: ['unit', "),
        (
            whole.replace("score,", "score,unit,"),
            "[], found: ['unit', 'category', 'label', 'score'",
        ),
    ):
        path.write_text(text)
        with pytest.raises(DataError) as caught:
            read_units(path)
        assert str(caught.value).startswith(
            f"{str(path)!r} is no table of units: its first row must name each column once, unit, "
            f"category, label, score and those of a category, such as 'object-label'; missing: "
            f"{missing}"
        )
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError) as caught:
        read_units(path)
    assert str(caught.value).startswith(f"cannot read units from {str(path)!r}: 'utf-8' codec")


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(ArtifactError, match="it is a folder"):
        write_units(tmp_path, TABLE, ["object"])
    with pytest.raises(KeyError):
        write_units(tmp_path / "units.csv", TABLE, ["animal"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_row_and_count_comes_out(data, tmp_path, name):
    path = Path(data.__file__).parent / "published" / f"{name}.csv"
    units = read_units(path)
    assert [unit.unit for unit in units] == list(range(len(units)))
    for row in records(path):
        unit = units[int(row["unit"]) - 1]
        assert (unit.category, unit.label) == (row["category"], row["label"])
        assert unit.category == max(reversed(unit.scores), key=lambda c: unit.scores[c].iou)
        assert unit.iou == float(row["score"])
        for category, score in unit.scores.items():
            assert score.iou == float(row[f"{category}-iou"])
    detectors, unique, any_category, best_labels = PUBLISHED[name]
    count = count_detectors(units)
    assert [count.detectors[each] for each in CATEGORIES] == detectors
    assert [count.unique[each] for each in CATEGORIES] == unique
    assert count.units_with_any == any_category
    best = count_detectors(units, convention="best_only")
    assert (sum(best.detectors.values()), best.total_unique) == (any_category, best_labels)
    write_units(tmp_path / "again.csv", units, list(units[0].scores))
    assert read_units(tmp_path / "again.csv") == units
    # The order of the rows too: the published one.
    assert [row["unit"] for row in records(tmp_path / "again.csv")] == [
        row["unit"] for row in records(path)
    ]
