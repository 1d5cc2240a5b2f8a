"""Self-attention: equal to the quadratic form where cells are positions, and bounded in memory elsewhere."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unblur.train.networks import build_network
from unblur.train.networks.blocks import SelfAttention, after_every_third, cell_means


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 48), (64, 16)])
def test_cell_means_are_adaptive_pooling_where_cells_are_whole(height: int, width: int) -> None:
    features = torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cell_means(features, 16), F.adaptive_avg_pool2d(features, 16))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (17, 90)])
def test_cell_means_weigh_cut_positions_by_their_share(height: int, width: int) -> None:
    features = torch.rand((1, 2, height, width), generator=torch.Generator().manual_seed(0))
    fine = F.interpolate(features, scale_factor=(4.0, 4.0), mode="nearest")  # every position cut in four each way
    torch.testing.assert_close(cell_means(features, 4), F.adaptive_avg_pool2d(fine, 4))


def test_it_is_the_non_local_block_when_every_position_is_a_cell() -> None:
    torch.manual_seed(0)
    block, x = SelfAttention(8, grid=6), torch.randn(2, 8, 6, 6)
    nn.init.constant_(block.gamma, 0.7)
    query, key, value = (conv(x).flatten(2) for conv in (block.query, block.key, block.value))
    weights = torch.einsum("nci,ncj->nij", query, key).softmax(2)
    attended = torch.einsum("nij,ncj->nci", weights, value).view(2, -1, 6, 6)
    torch.testing.assert_close(block(x), x + 0.7 * F.conv2d(attended, block.output.weight, block.output.bias))


def test_the_gates_of_the_papers_can_close_and_those_of_lprn_cannot() -> None:
    features = torch.rand(1, 8, 8, 8)
    lprn = build_network("lprn", width=8, blocks=1)
    for gates, weight in (
        (lprn.channel, 0.5),
        (build_network("msrm-dffm", width=8, blocks=1).encode[0][0].attention, 0.0),
        (build_network("rir", width=8, levels=1).encode[0].body[0].body[1], 0.0),
        (build_network("pix2pix-all", width=8, depth=4).bottleneck, 0.0),
    ):
        nn.init.constant_(gates.excite.bias, -100.0)
        seen = features.repeat(1, gates.squeeze.in_channels // 8, 1, 1)
        torch.testing.assert_close(gates.eval()(seen), weight * seen)


def test_it_starts_as_the_identity() -> None:
    x = torch.rand(1, 8, 5, 7)
    assert torch.equal(SelfAttention(8, grid=4)(x), x)


def test_it_stands_behind_every_third_block() -> None:
    blocks: list[nn.Module] = [nn.Identity() for _ in range(7)]
    placed = after_every_third(blocks, [8] * 7, grid=4)
    assert [isinstance(block, nn.Sequential) for block in placed] == [False, False, True, False, False, True, False]
