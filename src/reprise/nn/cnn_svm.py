"""The convolutional network of Agarap (2017), whose last layer serves a softmax or a support vector machine."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AgarapCNN"]


class AgarapCNN(nn.Module):
    """Two 5x5 convolutions, each pooled by two, a dense layer of 1,024 units, dropout, and a linear read-out.

    The read-out gives one score per class. What they mean is up to the loss: logits for
    :func:`torch.nn.functional.cross_entropy`, signed margins for :class:`reprise.training.L2SVMLoss`.

    Padding is TensorFlow's "SAME": an odd side n pools to (n + 1) / 2.

    Source: Agarap, arXiv 1712.03541, and the code published with it.

    Args:
        num_classes: number of scores K.
        in_channels: 1 for grey pictures, 3 for colour.
        image_size: height and width in pixels, or the pair of them.
        dropout: share of the 1,024 features dropped in training.
        init: "paper": weights from a normal distribution of standard deviation 0.1 cut at two deviations, biases 0.1;
            "torch": PyTorch's defaults.

    Raises:
        ValueError: a size below 1, ``dropout`` outside [0, 1), or an unknown ``init``.

    Example:
        >>> AgarapCNN()(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
        >>> AgarapCNN(num_classes=4, in_channels=3, image_size=33).features(torch.rand(2, 3, 33, 33)).shape
        torch.Size([2, 1024])
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int | tuple[int, int] = 28,
        dropout: float = 0.5,
        init: str = "paper",
    ) -> None:
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if min(num_classes, in_channels, height, width) < 1:
            raise ValueError(
                f"num_classes, in_channels and image_size must be at least 1; they are {num_classes}, {in_channels} "
                f"and {image_size}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a share in [0, 1), not {dropout}")
        if init not in ("paper", "torch"):
            raise ValueError(f'init is "paper" or "torch", not {init!r}')
        self.input_shape = (in_channels, height, width)
        self.conv1 = nn.Conv2d(in_channels, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.dense = nn.Linear(-(-height // 4) * -(-width // 4) * 64, 1024)
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(1024, num_classes)
        if init == "paper":
            self.apply(_init)

    def features(self, images: Tensor) -> Tensor:
        """What the read-out sees, before dropout.

        Args:
            images: (N, C, H, W) floats in 0..1.

        Returns:
            (N, 1024) floats, none negative.

        Raises:
            ValueError: the images are not floats of the shape that the network was made for.
        """
        if images.shape[1:] != self.input_shape or images.ndim != 4 or not images.is_floating_point():
            wanted = ", ".join(map(str, self.input_shape))
            raise ValueError(
                f"images must be floats of shape (N, {wanted}), not {images.dtype} of shape {tuple(images.shape)}; "
                "AgarapCNN(in_channels=..., image_size=...) makes a network for other sizes"
            )
        maps = _convolve(self.conv2, _convolve(self.conv1, images))
        # Height, width, channel, as TensorFlow flattens; of a channels-last tensor that is no copy.
        return F.relu(self.dense(maps.permute(0, 2, 3, 1).flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to scores (N, K)."""
        return self.readout(self.dropout(self.features(images)))


def _convolve(convolution: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
    # ReLU commutes with the maximum, and pooling leaves it a quarter of the work. ceil_mode: "SAME" on odd sides.
    return F.relu(F.max_pool2d(convolution(maps), 2, ceil_mode=True))


def _init(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=0.1, a=-0.2, b=0.2)
        nn.init.constant_(module.bias, 0.1)  # type: ignore[arg-type]
