import gc
import pickle
import sqlite3
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from captum_blackbox import BlackBox
from captum_blackbox.black_box.encoding import content_keys, decoded, encoded
from captum_blackbox.black_box.ledger import Ledger
from captum_blackbox.errors import ArtifactError, BlackBoxError, OutputError

HEADER = {"output": "logits"}
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64]


WHAT_TO_DO = "; give another file, or the settings that this one was made with"


def images_of(*numbers):
    return torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1, 1)


def logits(x):
    return torch.cat([x.flatten(1), -x.flatten(1), x.flatten(1) - 5], 1)


@given(
    widths=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(DTYPES)), min_size=1, max_size=3),
    rows=st.integers(1, 5),
)
def test_answers_come_back_bit_by_bit(widths, rows):
    # Width 0 stands for labels, a column without a second dimension.
    columns = tuple(
        (1e3 * torch.randn(rows, width) if width else 1e3 * torch.randn(rows)).to(dtype)
        for width, dtype in widths
    )
    for column, again in zip(columns, decoded(encoded(columns)), strict=True):
        assert again.dtype == column.dtype
        assert torch.equal(again, column)


def test_special_values_come_back_bit_by_bit():
    column = torch.tensor([[-0.0, 1e-45, -torch.inf, torch.finfo(torch.float32).max]])
    (again,) = decoded(encoded((column,)))
    assert torch.equal(again.view(torch.int32), column.view(torch.int32))


def test_answers_of_several_dtypes_are_joined_in_the_widest():
    rows = encoded((torch.ones(1, 2).half(),)) + encoded((torch.full((1, 2), 1 / 3),))
    (column,) = decoded(rows)
    assert column.dtype == torch.float32
    assert torch.equal(column, torch.tensor([[1.0, 1.0], [1 / 3, 1 / 3]]))


@given(first=st.lists(st.integers(0, 2), min_size=4, max_size=4), seed=st.integers(0, 2**31))
def test_keys_are_equal_where_contents_are(first, seed):
    images = torch.tensor(first).float().view(2, 2, 1, 1)
    same = torch.equal(images[0], images[1])
    keys = content_keys(images)
    assert (keys[0] == keys[1]) == same
    assert keys == [content_keys(images[i : i + 1])[0] for i in range(2)]
    assert content_keys(images.transpose(1, 2))[0] != keys[0]
    assert content_keys(images.double())[0] != keys[0]


def test_more_keys_than_one_statement_takes():
    ledger = Ledger(":memory:", HEADER)
    answers = {str(i).encode(): ("form", bytes([i % 256])) for i in range(1203)}
    with ledger.asking():
        ledger.write(answers)
    assert ledger.read([*answers, b"unknown", b"7"]) == answers
    assert ledger.read([]) == {}


def test_count_and_answers_outlive_the_box(tmp_path):
    path = tmp_path / "new" / "folder" / "cache.sqlite"
    first = BlackBox(logits, output="logits", cache=path)
    expected = first(images_of(1, 2))
    again = BlackBox(lambda x: pytest.fail("asked"), output="logits", cache=str(path))
    assert torch.equal(again(images_of(2, 1)), expected.flip(0))
    assert again.queries == first.queries == 2


def test_the_number_of_classes_is_kept_with_the_answers(tmp_path):
    path = tmp_path / "cache.sqlite"
    early = BlackBox(logits, output="logits", cache=path)
    other = BlackBox(lambda x: torch.zeros(len(x), 2), output="logits", cache=path)
    early(images_of(1))
    assert early.num_classes == 3
    # It was opened before anybody knew.
    with pytest.raises(OutputError, match=r"^expected 3 classes; the black box answered 2$"):
        other(images_of(2))
    assert other(images_of(1)).shape == (1, 3)
    assert other.num_classes == 3
    assert BlackBox(logits, output="logits", cache=path).num_classes == 3
    message = f"'{path}' does not belong here: num_classes is 3 in the file, 2 here{WHAT_TO_DO}"
    with pytest.raises(ArtifactError) as raised:
        BlackBox(logits, output="logits", cache=path, num_classes=2)
    assert str(raised.value) == message


def test_a_declared_number_of_classes_is_kept_before_anything_is_asked(tmp_path):
    path = tmp_path / "cache.sqlite"
    BlackBox(logits, output="logits", cache=path, num_classes=3)
    with pytest.raises(ArtifactError, match=f"num_classes is 3 in the file, 4 here{WHAT_TO_DO}$"):
        BlackBox(logits, output="logits", cache=path, num_classes=4)


def test_a_cache_of_another_model_or_kind_is_refused(tmp_path):
    path = tmp_path / "cache.sqlite"
    torch.manual_seed(1)
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    BlackBox(model, output="logits", cache=path)
    BlackBox(model, output="logits", cache=path)
    with pytest.raises(ArtifactError) as raised:
        BlackBox(model, output="probs", cache=path)
    assert str(raised.value) == (
        f"'{path}' does not belong here: output is 'logits' in the file, 'probs' here{WHAT_TO_DO}"
    )
    with pytest.raises(
        ArtifactError, match=r"model is '[0-9a-f]{32}' in the file, '[0-9a-f]{32}' h"
    ):
        BlackBox(other, output="logits", cache=path)
    with pytest.raises(ArtifactError, match=r"model is '[0-9a-f]{32}' in the file, None here; "):
        BlackBox(logits, output="logits", cache=path)
    of_function = tmp_path / "function.sqlite"
    BlackBox(logits, output="logits", cache=of_function)
    for _ in range(2):  # the refused model has left nothing there
        with pytest.raises(
            ArtifactError, match=r"model is None in the file, '[0-9a-f]{32}' here; "
        ):
            BlackBox(model, output="logits", cache=of_function)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes " * 100)
    before = path.read_bytes()
    with pytest.raises(ArtifactError) as raised:
        Ledger(path, HEADER)
    assert str(raised.value) == (
        f"cannot use '{path}' as a cache of answers: file is not a database; choose another file, "
        "in a folder that can be written"
    )
    assert path.read_bytes() == before


def test_the_database_of_something_else_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE answers (question TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ArtifactError) as raised:
        Ledger(path, HEADER)
    assert str(raised.value) == (
        f"'{path}' is a database, but no cache of answers; choose another file"
    )
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_cache(tmp_path):
    path = tmp_path / "empty"
    path.touch()
    assert Ledger(path, HEADER).queries == 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "cache.sqlite", tmp_path):
        with pytest.raises(
            ArtifactError, match=r"^cannot use '.*' as a cache of answers: .*; choose"
        ):
            Ledger(path, HEADER)


def test_a_full_disk_says_so_and_the_box_goes_on_when_there_is_room(tmp_path):
    def wide(x):
        return torch.zeros(len(x), 4000)

    box = BlackBox(wide, output="logits", cache=tmp_path / "cache.sqlite")
    box(images_of(0))
    connection = box._ledger._connection()
    connection.execute("PRAGMA max_page_count=20")
    message = (
        r"cannot use '.*' as a cache of answers: database or disk is full; choose another file"
    )
    with pytest.raises(ArtifactError, match=message):
        box(images_of(*range(1, 11)))
    assert not connection.in_transaction
    assert box.queries == 1
    connection.execute("PRAGMA max_page_count=100000")
    box(images_of(*range(1, 11)))
    assert box.queries == 11


class Failing:
    """A connection whose next COMMIT fails."""

    def __init__(self, connection):
        self._connection, self.fails = connection, True

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, statement, values=()):
        if statement == "COMMIT" and self.fails:
            self.fails = False
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(statement, values)


def test_a_commit_that_fails_is_rolled_back_and_reported(tmp_path, as_users_call):
    box = BlackBox(logits, output="logits", cache=tmp_path / "cache.sqlite")
    box(images_of(1))
    box._ledger._sqlite = Failing(box._ledger._sqlite)
    with pytest.raises(ArtifactError, match="as a cache of answers: disk I/O error; choose"):
        box(images_of(2))
    assert box.queries == 1
    box(images_of(1, 2))
    assert box.queries == 2


def test_what_was_written_before_an_interrupt_stands(tmp_path):
    path = tmp_path / "cache.sqlite"
    ledger = Ledger(path, HEADER)
    with pytest.raises(KeyboardInterrupt), ledger.asking():
        ledger.count(2)
        raise KeyboardInterrupt
    assert Ledger(path, HEADER).queries == 2
    # An interrupt in the very last moment leaves the transaction open.
    ledger._connection().execute("BEGIN IMMEDIATE")
    with ledger.asking():
        ledger.count(1)
    assert Ledger(path, HEADER).queries == 3


def test_an_error_of_the_cache_is_not_blamed_on_the_black_box(tmp_path):
    box = BlackBox(logits, output="logits", cache=tmp_path / "cache.sqlite")
    box._ledger._execute("DROP TABLE answers")
    with pytest.raises(ArtifactError, match="as a cache of answers: no such table: answers"):
        box(images_of(1))


def test_an_error_of_sqlite_in_the_function_is_the_functions():
    def fn(x):
        raise sqlite3.OperationalError("mine")

    box = BlackBox(fn, output="logits", cache=":memory:")
    with pytest.raises(BlackBoxError, match=r"the black box raised OperationalError on .*: mine; "):
        box(images_of(1))


def test_threads_wait_for_each_other(tmp_path):
    asked = []

    def fn(x):
        asked.extend(x.flatten().tolist())
        time.sleep(0.002)
        return logits(x)

    for cache in (":memory:", tmp_path / "cache.sqlite"):
        asked.clear()
        box = BlackBox(fn, output="logits", batch_size=2, cache=cache, query_budget=20)
        errors = []

        def work(box=box, errors=errors):
            try:
                torch.testing.assert_close(
                    box.answers(images_of(*range(20))), logits(images_of(*range(20)))
                )
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert sorted(asked) == list(range(20))
        assert box.queries == 20


def test_a_ledger_can_be_closed_copied_and_sent_elsewhere(tmp_path):
    path = tmp_path / "cache.sqlite"
    ledger = Ledger(path, HEADER)
    with ledger.asking():
        ledger.count(1)
        ledger.close()  # not in the middle
        ledger.count(1)
    ledger.close()
    assert not path.with_name("cache.sqlite-wal").exists()
    assert ledger.queries == 2
    sent = pickle.loads(pickle.dumps(ledger))
    with sent.asking():
        sent.count(1)
    assert ledger.queries == 3


def test_a_ledger_that_is_gone_has_closed_its_file(tmp_path):
    path = tmp_path / "cache.sqlite"
    ledger = Ledger(path, HEADER)
    with ledger.asking():
        ledger.count(1)
    assert path.with_name("cache.sqlite-wal").exists()
    del ledger
    gc.collect()
    assert not path.with_name("cache.sqlite-wal").exists()


def test_weights_that_change_while_the_cache_is_open_are_noticed(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 3))
    box = BlackBox(model, output="logits", cache=tmp_path / "cache.sqlite")
    box(images_of(1))
    with torch.no_grad():
        model[1].bias.add_(1)
    message = "the weights of the black box changed after its cache was opened.*make a new BlackBox"
    with pytest.raises(ArtifactError, match=message):
        box(images_of(1))
