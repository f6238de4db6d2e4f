import pytest
import torch

from reprise.data import appearance_shift
from reprise.data.shifts import SHIFTS

PIXELS = torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("kind", "pixel"),
    [
        ("rgb+50", (150, 255, 60)), ("r+50", (150, 220, 10)), ("gamma2", (39, 190, 0)), ("tint", (100, 132, 4)),
        ("gray", (160, 160, 160)), ("invert", (155, 35, 245)),
    ],
)  # fmt: skip
def test_values(kind, pixel):
    picture = torch.tensor([100, 220, 10], dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
    assert appearance_shift(picture, kind)[:, 0, 0].tolist() == list(pixel)


def test_less_contrast_keeps_means_and_divides_deviations():
    x = PIXELS.double()
    y = appearance_shift(x, "std/1.5")
    torch.testing.assert_close(y.mean((2, 3)), x.mean((2, 3)))
    torch.testing.assert_close(y.std((2, 3)), x.std((2, 3)) / 1.5)


@pytest.mark.parametrize("kind", SHIFTS)
def test_bytes_are_the_rounded_floats_and_the_input_stays(kind):
    before = PIXELS.clone()
    shifted = appearance_shift(PIXELS, kind)
    assert shifted.dtype == torch.uint8
    assert torch.equal(PIXELS, before)
    torch.testing.assert_close(shifted.float(), appearance_shift(PIXELS.float(), kind).round())


def test_wrong_input():
    with pytest.raises(ValueError, match="unknown shift 'sepia'; there are rgb"):
        appearance_shift(PIXELS, "sepia")
    with pytest.raises(ValueError, match=r"pictures are \(..., 3, H, W\), not \(4, 1, 6, 6\)"):
        appearance_shift(PIXELS[:, :1], "gray")
    with pytest.raises(ValueError, match="uint8 or floats"):
        appearance_shift(PIXELS.long(), "gray")
