import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from reprise.data import Bags, DataMissing, bags, bit_pattern_bags, digit_bags


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a table as the set "toy" where sets are looked up."""
    monkeypatch.setenv("REPRISE_DATA", str(tmp_path))

    def write(**columns):
        (tmp_path / "toy").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "toy" / "train.parquet")

    return write


def test_a_table_becomes_bags(write):
    features = {f"f{i}": [float(i + 100 * row) for row in range(5)] for i in (10, 2, 1)}
    write(label=[1, 0, 1, 0, 0], bag=[7, 3, 7, 3, 3], other=[0] * 5, **features)
    toy = bags.load("toy")
    assert toy.labels.tolist() == [0, 1] and toy.sizes.tolist() == [3, 2]
    assert toy.instances[1].tolist() == [[1, 2, 10], [201, 202, 210], [0, 0, 0]]
    assert toy.padding.tolist() == [[False] * 3, [False, False, True]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0, 1], "f0": [0.0, 1.0]}, "no column bag"),
        ({"label": [0, 1], "bag": [1, 2], "size": [0.0, 1.0]}, "has no features"),
        ({"label": [0, 2], "bag": [1, 2], "f0": [0.0, 1.0]}, "labels of .* are 0 and 1, not 0, 2"),
        ({"label": [0, 1], "bag": [4, 4], "f0": [0.0, 1.0]}, "bag 4 of .* has instances of both labels"),
        ({"label": [0, 1], "bag": [1, 2], "f0": [0.0, np.nan]}, "row 1 of .* not finite"),
    ],
)
def test_bad_tables(write, columns, message):
    write(**columns)
    with pytest.raises(ValueError, match=message):
        bags.load("toy")


def test_damaged_and_missing_sets(write, tmp_path):
    with pytest.raises(DataMissing, match="'toy' is not on this machine"):
        bags.load("toy")
    write(label=[0])
    (tmp_path / "toy" / "train.parquet").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged"):
        bags.load("toy")


def test_chosen_bags_are_padded_to_their_own_largest():
    data = Bags.of(torch.arange(1.0, 7)[:, None], torch.tensor([1, 3, 2]), torch.tensor([0, 1, 1]))
    chosen = data[torch.tensor([2, 0])]
    assert chosen.instances.squeeze(-1).tolist() == [[5, 6], [1, 0]] and chosen.labels.tolist() == [1, 0]
    assert len(data[torch.tensor([], dtype=torch.long)]) == 0


def test_folds_are_stratified_and_cover_every_bag_once():
    data = digit_bags(40, seed=0)
    folds = list(data.folds(5, seed=1))
    assert torch.cat([test for _, test in folds]).sort().values.equal(torch.arange(40))
    assert all(data.labels[test].sum() == 4 and not set(test.tolist()) & set(train.tolist()) for train, test in folds)
    assert not folds[0][1].equal(next(data.folds(5, seed=2))[1])
    with pytest.raises(ValueError, match="the rarer class has 20 bags"):
        next(data.folds(21, seed=0))


def test_bad_bags():
    with pytest.raises(ValueError, match="3 instances"):
        Bags.of(torch.zeros(3, 1), torch.tensor([1, 1]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="bag 1 is empty"):
        Bags.of(torch.zeros(3, 1), torch.tensor([3, 0]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="at least one bag"):
        digit_bags(0, seed=0)
    with pytest.raises(ValueError, match="8 signals do not leave"):
        bit_pattern_bags(4, seed=0, bits=3)


def test_bit_patterns_tell_the_classes_apart_by_one_signal():
    data = bit_pattern_bags(200, seed=0)
    codes = (data.instances @ 2.0 ** torch.arange(8)).long()
    assert (codes > 0).all() and data.labels.sum() == 100
    quiet = set(codes[data.labels == 0].flatten().tolist())
    signals = [[code for code in bag if code not in quiet] for bag in codes[data.labels == 1].tolist()]
    assert {len(found) for found in signals} == {1} and len({found[0] for found in signals}) == 8


def test_bags_of_digits_repeat_by_seed_and_hold_the_target_where_positive():
    first, again, other = digit_bags(50, 3), digit_bags(50, 3), digit_bags(50, 4)
    assert first.instances.equal(again.instances) and not first.sizes.equal(other.sizes)
    nines = {
        tuple(x.tolist()) for x in bags.images.load("digits").train.pixels.flatten(1)[_labels() == 9].float() / 255
    }
    for bag, padding, label in zip(first.instances, first.padding, first.labels, strict=True):
        assert any(tuple(x.tolist()) in nines for x in bag[~padding]) == bool(label)


def _labels():
    return bags.images.load("digits").train.labels
