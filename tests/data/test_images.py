import io

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from reprise.data import DataMissing, Images, images


def picture(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def write(path, arrays, labels, columns=("image", "label")):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = dict(zip(columns, ([picture(array) for array in arrays], labels), strict=True))
    pyarrow.parquet.write_table(pyarrow.table(table), path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of data sets in the hub's layout."""
    monkeypatch.setenv("REPRISE_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def mnist(folder):
    """Six tiny grey pictures, four to train on."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    write(folder / "mnist" / "train.parquet", pixels[:4], [3, 1, 4, 1])
    write(folder / "mnist" / "test.parquet", pixels[4:], [5, 9])
    return pixels


def test_digits():
    digits = images.load("digits")
    assert (len(digits.train), len(digits.test)) == (1297, 500)
    assert digits.train.pixels.dtype == torch.uint8 and int(digits.train.pixels.max()) == 255
    assert digits.train.classes == tuple("0123456789")


def test_grey_pictures(mnist):
    for _ in range(2):  # decoded, then from the cache
        images._decode.cache_clear()
        data = images.load("mnist")
        assert torch.equal(data.train.pixels, torch.from_numpy(mnist[:4, None]))
        assert data.train.labels.tolist() == [3, 1, 4, 1] and data.test.labels.tolist() == [5, 9]
    torch.testing.assert_close(data.test.floats(), torch.from_numpy(mnist[4:, None] / 255).float())


@pytest.mark.parametrize("column", ["image", "img"])
def test_colour_pictures_under_either_name(folder, column):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    for split in ("train", "test"):
        write(folder / "cifar10" / f"{split}.parquet", pixels, [0, 9], (column, "label"))
    data = images.load("cifar10")
    assert torch.equal(data.train.pixels, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert data.train.classes[9] == "truck"


def test_changing_pictures_leaves_the_cache_as_it_is(mnist):
    images.load("mnist").train.pixels.zero_()
    images._decode.cache_clear()
    images.load("mnist").train.pixels.zero_()  # memory-mapped, copy on write
    images._decode.cache_clear()
    assert torch.equal(images.load("mnist").train.pixels, torch.from_numpy(mnist[:4, None]))


def test_draw():
    digits = images.load("digits")
    train, test = digits.draw(7, 20, 10)
    again, _ = digits.draw(7, 20)
    other, _ = digits.draw(8, 20)
    assert torch.equal(train.pixels, again.pixels) and not torch.equal(train.pixels, other.pixels)
    assert (len(train), len(test)) == (20, 10)
    whole, _ = digits.draw(7)
    assert torch.equal(whole.labels.sort()[0], digits.train.labels.sort()[0])
    assert torch.equal(whole.pixels[:20], train.pixels)


@pytest.mark.parametrize(("train", "test"), [(1298, 1), (0, 1), (-3, 1), (1, 501)])
def test_draw_out_of_range(train, test):
    with pytest.raises(ValueError, match=r"pictures were asked for; digits has (1297|500)"):
        images.load("digits").draw(0, train, test)


def test_unknown_and_missing(monkeypatch):
    with pytest.raises(ValueError, match="unknown picture set 'svhn'; there are digits, mnist"):
        images.load("svhn")
    monkeypatch.delenv("REPRISE_DATA", raising=False)
    with pytest.raises(DataMissing, match=r"`reprise data get cifar10` downloads it .144 MB., or set REPRISE_DATA"):
        images.load("cifar10")


def test_wrong_columns(folder, mnist):
    write(folder / "mnist" / "train.parquet", mnist[:2], [0, 1], ("picture", "label"))
    with pytest.raises(ValueError, match="must have the columns image and label; it has picture, label"):
        images.load("mnist")


def test_damaged_picture(folder, mnist):
    rows = [picture(mnist[0]), {"bytes": b"nothing", "path": None}]
    pyarrow.parquet.write_table(pyarrow.table({"image": rows, "label": [0, 1]}), folder / "mnist" / "train.parquet")
    with pytest.raises(ValueError, match=r"row 1 of .*train.parquet is no picture"):
        images.load("mnist")


def test_pictures_of_different_sizes(folder, mnist):
    write(folder / "mnist" / "train.parquet", [mnist[0], mnist[0][:3]], [0, 1])
    with pytest.raises(ValueError, match="not all of one size"):
        images.load("mnist")


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2).long()),
        (torch.zeros(2, 4, 4).byte(), torch.zeros(2).long()),
        (torch.zeros(2, 1, 4, 4).byte(), torch.zeros(3).long()),
        (torch.zeros(2, 1, 4, 4).byte(), torch.zeros(2)),
    ],
)
def test_bad_pictures(pixels, labels):
    with pytest.raises(ValueError, match=r"pixels must be bytes|need as many int64 labels"):
        Images(pixels, labels, ("a", "b"))
