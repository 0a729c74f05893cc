"""Evidence is gathered from where affinities say, against the sum written out."""

import numpy as np
import pytest
import torch
from one_thread import one_thread  # noqa: F401 (all tests here run on one)

from dfd_ros.models.affinity import REACHES, AffinityGathering


def written_out(evidence: np.ndarray, affinities: np.ndarray) -> np.ndarray:
    """Of one picture: evidence (K, h, w), affinities (3, 8, h, w)."""
    _, height, width = evidence.shape
    offsets = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    for reach, shares in zip(REACHES, affinities, strict=True):
        gathered = evidence.copy()
        for (y, x), share in zip(offsets, shares, strict=True):
            for row in range(height):
                for column in range(width):
                    r, c = row + reach * y, column + reach * x
                    if 0 <= r < height and 0 <= c < width:
                        gathered[:, row, column] += share[row, column] * evidence[:, r, c]
        evidence = gathered
    return evidence


@pytest.mark.parametrize("size", [(12, 15), (3, 4)])
def test_it_is_the_sum_over_neighbours(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    gathering = AffinityGathering(5).double()
    torch.nn.init.normal_(gathering.affinities.weight)
    evidence, features = torch.randn(2, 4, *size).double(), torch.randn(2, 5, *size).double()
    with torch.no_grad():
        found = gathering(evidence, features).numpy()
        shares = torch.sigmoid(gathering.affinities(features)).unflatten(1, (len(REACHES), 8)).numpy()
    for k in range(2):
        np.testing.assert_allclose(found[k], written_out(evidence[k].numpy(), shares[k]), rtol=1e-12, atol=1e-12)


def test_to_begin_with_each_cell_keeps_to_itself() -> None:
    evidence = torch.zeros(1, 3, 30, 40)
    evidence[0, :, 15, 20] = 1.0
    with torch.no_grad():
        found = AffinityGathering(8)(evidence, torch.rand(1, 8, 30, 40))
    assert float(found[0, 0, 15, 20]) == pytest.approx(1.0)
    assert float(found[0, 0].sum()) < 1.6
    assert float(found[0, 0, 0, 0]) == 0.0, "beyond the farthest reach"


def test_a_cell_that_knows_nothing_learns_of_its_neighbours() -> None:
    torch.manual_seed(0)
    gathering = AffinityGathering(1)
    evidence = torch.randn(1, 6, 20, 20) * (torch.rand(1, 1, 20, 20) < 0.1)  # few cells tell
    target = evidence.sum(dim=(2, 3), keepdim=True).expand_as(evidence)
    optimizer = torch.optim.Adam(gathering.parameters(), 0.05)
    losses = []
    for _ in range(150):
        found = gathering(evidence, torch.ones(1, 1, 20, 20))
        loss = (torch.softmax(found, 1) - torch.softmax(target, 1)).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
