import pytest
import torch

from reid.models import gap, gap_gmp, gmp, part_pool


def random_map(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_global_poolings_match_loops():
    maps = random_map(3, 5, 4, 2)
    for image in range(3):
        for channel in range(5):
            values = [float(v) for v in maps[image, channel].flatten()]
            average, maximum = sum(values) / len(values), max(values)
            assert float(gap(maps)[image, channel]) == pytest.approx(average, abs=1e-6)
            assert float(gmp(maps)[image, channel]) == maximum
            assert float(gap_gmp(maps)[image, channel]) == pytest.approx(
                average + maximum, abs=1e-6
            )


@pytest.mark.parametrize(
    ("height", "num_parts", "rows"),
    [
        (8, 2, [range(0, 4), range(4, 8)]),
        (5, 2, [range(0, 3), range(3, 5)]),
        (7, 3, [range(0, 3), range(3, 5), range(5, 7)]),
    ],
)
def test_strips_are_cut_from_top_to_bottom(height, num_parts, rows):
    maps = random_map(2, 3, height, 4)
    average, maximum = part_pool(maps, num_parts)
    assert average.shape == maximum.shape == (2, num_parts, 3)
    for part, part_rows in enumerate(rows):
        strip = torch.stack([maps[:, :, row] for row in part_rows], dim=2).flatten(2)
        torch.testing.assert_close(average[:, part], strip.mean(2))
        assert torch.equal(maximum[:, part], strip.max(2).values)


def test_equal_strips_pool_to_the_whole():
    maps = random_map(2, 3, 8, 4)
    average, maximum = part_pool(maps, 2)
    torch.testing.assert_close(average.mean(1), gap(maps))
    assert torch.equal(maximum.amax(1), gmp(maps))


@pytest.mark.parametrize("num_parts", [0, 4])
def test_too_many_or_no_strips_are_refused(num_parts):
    with pytest.raises(ValueError, match="3 rows cannot be cut"):
        part_pool(random_map(1, 2, 3, 4), num_parts)


def test_bfloat16_maps_are_averaged_in_float32():
    maps = random_map(2, 3, 8, 4).bfloat16()
    for pool in (gap, gmp, gap_gmp):
        assert pool(maps).dtype == torch.float32
        torch.testing.assert_close(pool(maps), pool(maps.float()), rtol=0, atol=1e-6)


def test_gradients_of_the_poolings():
    maps = random_map(2, 3, 4, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(gap_gmp, maps)
    assert torch.autograd.gradcheck(lambda x: part_pool(x, 2), maps)
