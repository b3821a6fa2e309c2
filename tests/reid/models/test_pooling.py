import pytest
import torch

from reid.models import GeM, gap, gap_gmp, gmp, part_gap, part_pool


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


@pytest.mark.parametrize(
    ("height", "num_parts", "rows"),
    [
        (24, 3, [range(0, 8), range(8, 16), range(16, 24)]),
        (16, 3, [range(0, 5), range(5, 11), range(11, 16)]),
        (8, 3, [range(0, 3), range(3, 5), range(5, 8)]),
        (7, 2, [range(0, 4), range(4, 7)]),
        (3, 3, [range(0, 1), range(1, 2), range(2, 3)]),
        (5, 1, [range(0, 5)]),
    ],
)
def test_parts_are_means_of_strips_that_do_not_overlap(height, num_parts, rows):
    maps = random_map(2, 3, height, 4)
    pooled = part_gap(maps, num_parts)
    assert pooled.shape == (2, num_parts, 3)
    for part, part_rows in enumerate(rows):
        strip = torch.stack([maps[:, :, row] for row in part_rows], dim=2)
        torch.testing.assert_close(pooled[:, part], strip.flatten(2).mean(2))


def test_parts_of_a_divisible_height_are_the_released_adaptive_ones():
    maps = random_map(2, 3, 24, 4)
    adaptive = torch.nn.functional.adaptive_avg_pool2d(maps, (3, 1))[..., 0].transpose(1, 2)
    torch.testing.assert_close(part_gap(maps, 3), adaptive)


@pytest.mark.parametrize("num_parts", [0, 4])
def test_too_many_or_no_parts_are_refused(num_parts):
    with pytest.raises(ValueError, match="3 rows cannot be cut"):
        part_gap(random_map(1, 2, 3, 4), num_parts)


def test_generalised_mean_matches_a_loop():
    maps = random_map(2, 3, 4, 2)
    pooled = GeM()(maps).detach()
    for image in range(2):
        for channel in range(3):
            powers = [max(float(v), 1e-6) ** 3 for v in maps[image, channel].flatten()]
            expected = (sum(powers) / len(powers)) ** (1 / 3)
            assert float(pooled[image, channel]) == pytest.approx(expected, rel=1e-5)


def test_generalised_mean_lies_between_mean_and_maximum():
    maps = random_map(2, 3, 4, 2).abs()
    torch.testing.assert_close(GeM(power=1.0)(maps), gap(maps))
    torch.testing.assert_close(GeM(power=60.0)(maps), gmp(maps), rtol=0.05, atol=0)


def test_generalised_mean_learns_its_power_also_from_maps_without_a_positive_value():
    pool = GeM().double()
    maps = random_map(2, 3, 4, 2).double().abs().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, p: _gem_of_power(pool, x, p), (maps, pool.power))
    pool = GeM()
    pool(-random_map(2, 3, 4, 2).abs()).sum().backward()
    assert bool(pool.power.grad.isfinite().all())


def _gem_of_power(pool, maps, power):
    return torch.func.functional_call(pool, {"power": power}, (maps,))


def test_generalised_mean_is_float32_under_autocast():
    maps, pool = random_map(2, 3, 8, 4).abs().bfloat16(), GeM()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pool(maps)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, pool(maps.float()))
