"""Pictures and targets as every attribution takes them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from reprise.explain.targets import batches, select_scores

NET = nn.Conv2d(1, 2, 3)
LOGITS = torch.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, 6.0]])


def test_scores_of_every_kind_of_target():
    assert select_scores(LOGITS, None).tolist() == [[3], [6]]
    assert select_scores(LOGITS, 0).tolist() == select_scores(LOGITS, np.int64(0)).tolist() == [[1], [5]]
    assert select_scores(LOGITS, torch.tensor([2, 1])).tolist() == [[2], [4]]
    assert select_scores(LOGITS, torch.tensor([[2, 1], [0, 0]])).tolist() == [[2, 3], [5, 5]]
    assert select_scores(LOGITS, lambda output: output.sum(1)).tolist() == [[6], [15]]


def test_chunks_keep_order_and_pair_pictures_with_targets():
    images, targets = torch.randn(5, 1, 4, 4), torch.arange(5)
    chunks = list(batches(NET, images, targets, 2))
    assert [len(chunk) for chunk, _ in chunks] == [2, 2, 1]
    assert torch.equal(torch.cat([chunk for chunk, _ in chunks]), images)
    assert torch.equal(torch.cat([target for _, target in chunks]), targets)
    assert chunks[0][0].stride() == (16, 1, 4, 1)  # channels last, though there is one channel
    assert len(list(batches(NET, images, lambda output: output[:, 0], 2))) == 1


def test_many_weights_keep_pictures_as_they_are():
    images, heavy = torch.randn(2, 1, 4, 4), nn.Conv2d(1, 64, 3)
    ((chunk, _),) = batches(heavy, images, None, 2)
    assert chunk.is_contiguous()
    ((chunk, _),) = batches(nn.Conv2d(3, 64, 3).to(memory_format=torch.channels_last), torch.randn(2, 3, 4, 4), None, 2)
    assert not chunk.is_contiguous()


def test_large_sums_in_half_precision_are_no_fault():
    images = torch.full((1, 3, 200, 200), 100.0, dtype=torch.half)
    assert len(list(batches(NET, images, None, 1))) == 1
