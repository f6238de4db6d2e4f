import pytest
import torch

from reprise.data import HashedWords, fill_templates


def test_vectors_are_the_same_everywhere():
    vector = HashedWords(8)(["push it left"])[0]
    assert torch.allclose(vector.norm(), torch.tensor(1.0))
    assert (vector * 3).round(decimals=4).tolist() == [0, 0, -2, 0, -1, 0, 0, 2]


def test_order_of_words_tells_sentences_apart_and_case_does_not():
    words = HashedWords(256)
    a, b, c, empty = words(["red on blue", "blue on red", "Red, on BLUE!", ""])
    assert torch.equal(a, c) and 0.3 < a @ b < 0.95 and (empty == 0).all()
    assert words([]).shape == (0, 256)


def test_templates():
    sentences = fill_templates(["{a} {b}", "{b}"], a=["x", "y"], b=["1", "2"])
    assert sentences == ["x 1", "x 2", "y 1", "y 2", "1", "2"]
    with pytest.raises(ValueError, match="needs words for 'c'"):
        fill_templates(["{a} {c}"], a=["x"])
    with pytest.raises(ValueError, match="at least 1 number"):
        HashedWords(0)
