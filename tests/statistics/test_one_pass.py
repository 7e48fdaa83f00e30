"""Data read once: order, sharing out, resuming, and what is refused."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from captum_blackbox.errors import InputError
from captum_blackbox.statistics import OnePass

DATA = torch.arange(23.0).reshape(23, 1)
LABELLED = TensorDataset(DATA, torch.arange(23))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(DATA)


def read(data, start=0):
    return [(number, batch.flatten().tolist()) for number, batch in data.batches(start)]


EXPECTED = [
    (0, [*range(5)]),
    (1, [*range(5, 10)]),
    (2, [*range(10, 15)]),
    (3, [*range(15, 20)]),
    (4, [*range(20, 23)]),
]
LOADERS = {
    "list": lambda: list(DATA.split(5)),
    "tuple": lambda: DATA.split(5),
    "pairs": lambda: [(each, "label") for each in DATA.split(5)],
    "generator": lambda: iter(DATA.split(5)),
    "in order": lambda: DataLoader(LABELLED, batch_size=5),
    "shuffled": lambda: DataLoader(LABELLED, batch_size=5, shuffle=True),
    "stream": lambda: DataLoader(Stream(), batch_size=5),
    "batch sampler": lambda: DataLoader(
        LABELLED, batch_sampler=BatchSampler(SequentialSampler(LABELLED), 5, drop_last=False)
    ),
    "whole batches": lambda: DataLoader(DATA.split(5), batch_size=None),
}
every_loader = pytest.mark.parametrize("build", LOADERS.values(), ids=LOADERS)


@every_loader
def test_every_batch_comes_once_and_in_order(build):
    data = OnePass(build())
    assert data.first.flatten().tolist() == [0, 1, 2, 3, 4]
    assert read(data) == EXPECTED


@every_loader
@pytest.mark.parametrize("start", [1, 3, 5])
def test_reading_goes_on_where_it_stopped(build, start):
    assert read(OnePass(build()), start) == EXPECTED[start:]


@every_loader
@pytest.mark.parametrize("processes", [2, 3, 7])
def test_processes_share_the_batches_out(build, processes):
    shares = [OnePass(build(), process, processes) for process in range(processes)]
    found = [read(share) for share in shares]
    together = sorted(batch for share in found for _, batch in share)
    assert together == [batch for _, batch in EXPECTED]
    for share in found:
        assert [number for number, _ in share] == list(range(len(share)))
    assert max(map(len, found)) - min(map(len, found)) <= 1
    assert [read(share, 1) for share in [OnePass(build(), 0, processes)]] == [found[0][1:]]


@given(st.integers(1, 40), st.integers(1, 12), st.booleans(), st.integers(1, 4))
def test_a_loader_is_as_long_as_the_batches_it_gives(size, batch_size, drop_last, processes):
    dataset = TensorDataset(torch.arange(float(size)).reshape(-1, 1))
    loader = DataLoader(dataset, batch_size, shuffle=True, drop_last=drop_last)
    if drop_last and size < batch_size:
        with pytest.raises(InputError):
            OnePass(loader)
        return
    shares = [OnePass(loader, process, processes) for process in range(processes)]
    found = [read(share) for share in shares]
    assert [len(share) for share in shares] == [len(share) for share in found]
    assert sum(map(len, found)) == len(loader)
    values = sorted(value for share in found for _, batch in share for value in batch)
    assert values == list(range(size - size % batch_size if drop_last else size))


def test_a_tensor_is_split_into_batches():
    found = OnePass(torch.arange(70.0).reshape(70, 1))
    assert [(n, len(batch)) for n, batch in found.batches()] == [(0, 32), (1, 32), (2, 6)]
    assert len(found) == 3


def test_what_does_not_know_its_length_has_length_zero():
    assert len(OnePass(iter(DATA.split(5)))) == 0
    assert len(OnePass(DATA.split(5), 1, 3)) == 2


def test_a_sampler_that_chooses_is_heeded():
    chosen = DataLoader(LABELLED, batch_size=2, sampler=SubsetRandomSampler([3, 8, 20]))
    assert sorted(value for _, batch in read(OnePass(chosen)) for value in batch) == [3, 8, 20]
    some = SequentialSampler(range(6))
    loader = DataLoader(LABELLED, batch_size=4, sampler=some)
    assert read(OnePass(loader)) == [(0, [0, 1, 2, 3]), (1, [4, 5])]


def test_a_sampler_that_draws_a_number_of_samples_is_heeded():
    drawn = RandomSampler(LABELLED, num_samples=6)
    loader = DataLoader(LABELLED, batch_size=4, sampler=drawn)
    assert sum(len(batch) for _, batch in read(OnePass(loader))) == 6
    assert len(OnePass(loader)) == len(loader) == 2


def test_the_transforms_of_a_loader_are_applied():
    def collate(items):
        return torch.stack([image for image, _ in items]) + 100, None

    loader = DataLoader(LABELLED, batch_size=5, shuffle=True, collate_fn=collate)
    assert read(OnePass(loader))[4] == (4, [120, 121, 122])


def test_the_digest_tells_data_apart_and_does_not_depend_on_a_shuffle():
    digest = OnePass(DataLoader(LABELLED, batch_size=5)).digest()
    assert OnePass(DataLoader(LABELLED, batch_size=5, shuffle=True)).digest() == digest
    assert OnePass(DATA.split(5)).digest() == digest
    others = [
        DATA.split(4),
        (DATA + 1).split(5),
        DATA.double().split(5),
        DATA.reshape(23, 1, 1).split(5),
    ]
    assert len({digest, *(OnePass(other).digest() for other in others)}) == 5


@pytest.mark.parametrize("loader", [3, None, TensorDataset(DATA)], ids=["int", "none", "dataset"])
def test_what_is_no_loader_is_refused(as_users_call, loader):
    message = (
        f"expected a DataLoader, an iterable of batches or a tensor, got a {type(loader).__name__}"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        OnePass(loader)


def test_a_batch_of_another_kind_is_refused_with_its_number():
    data = OnePass([DATA, (DATA, 1), {"x": DATA}])
    batches = data.batches()
    next(batches), next(batches)
    message = "batch 2: expected a floating-point tensor, or a tuple that starts with one, got dict"
    with pytest.raises(InputError, match=f"^{message}$"):
        next(batches)


def test_an_empty_loader_is_refused():
    for loader in ([], iter(()), DataLoader(DATA[:0])):
        with pytest.raises(InputError, match="^the loader gave no batch; give at least one$"):
            OnePass(loader)


def test_a_tensor_of_no_inputs_is_refused():
    with pytest.raises(InputError):
        OnePass(torch.zeros(0, 3))


def test_reading_twice_gives_the_same_where_the_data_can_be_read_twice():
    data = OnePass(DataLoader(LABELLED, batch_size=5, shuffle=True))
    assert read(data) == read(data) == EXPECTED
    assert_close(data.first, DATA[:5])
