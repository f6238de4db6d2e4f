import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reprise.nn import multiply_adds, parameters, resnet


def test_parameters_are_real_numbers():
    net = nn.Linear(3, 2)
    net.complex = nn.Parameter(torch.zeros(5, dtype=torch.complex64), requires_grad=False)
    net.again = net.weight
    assert parameters(net) == 8 + 10
    assert parameters(net, trainable=True) == 8


# 1.81, 4.09 and 7.80 billion are the numbers given everywhere for 224x224.
@pytest.mark.parametrize(("depth", "count"), [(18, 1_814_073_344), (50, 4_089_184_256), (101, 7_801_405_440)])
def test_multiply_adds_of_resnets(depth, count):
    with torch.device("meta"):
        net = resnet(depth)
    assert multiply_adds(net, (1, 3, 224, 224)) == count


def test_grouped_convolution():
    assert multiply_adds(nn.Conv2d(8, 16, 3, padding=1, groups=4), (2, 8, 5, 5)) == 2 * 16 * (8 // 4) * 9 * 25


class Attention(nn.Module):
    def forward(self, query, key):
        return F.scaled_dot_product_attention(query, key, key)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention(device):
    query, key = torch.zeros(2, 4, 6, 8, device=device), torch.zeros(2, 4, 10, 8, device=device)
    assert multiply_adds(Attention(), (query, key)) == 2 * (2 * 4) * 6 * 10 * 8


def test_a_model_on_the_cpu_is_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    net[2].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert multiply_adds(net, (2, 3, 8, 8)) == multiply_adds(net, torch.zeros(2, 3, 8, 8)) == 2 * 4 * 27 * 36
    assert [module.training for module in net] == [True, True, False]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
