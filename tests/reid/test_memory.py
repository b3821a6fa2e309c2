import copy
import math

import pytest
import torch
import torch.nn.functional as F

from reid.memory import ClusterMemory, HybridMemory, RoundMemory

# Three clusters (labels with gaps) and two images alone; rows of a class lie apart.
CLASSES = torch.tensor([7, 40, 7, 3, 40, 7, 100, 3, 99])
D = 6


def unit(count, *, seed, dtype=torch.float32):
    rows = torch.randn(count, D, generator=torch.Generator().manual_seed(seed))
    return F.normalize(rows.to(dtype))


def hybrid(*, dtype=torch.float32, **settings):
    return HybridMemory(unit(len(CLASSES), seed=0, dtype=dtype), CLASSES, **settings)


def clusters(*, dtype=torch.float32, **settings):
    return ClusterMemory(unit(5, seed=0, dtype=dtype), **settings)


def rows_of(memory):
    return memory.bank if isinstance(memory, HybridMemory) else memory.centers


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cross_entropy(logits, target):
    return math.log(sum(math.exp(value) for value in logits)) - logits[target]


def follow(row, feature, momentum):
    moved = [momentum * r + (1 - momentum) * f for r, f in zip(row, feature, strict=True)]
    return [value / math.hypot(*moved) for value in moved]


def hybrid_reference(memory, features, index):
    """SpCL's unified loss (arXiv 2006.02713), classes one after another."""
    bank, classes, total = memory.bank.tolist(), CLASSES.tolist(), 0.0
    names = sorted(set(classes))
    for feature, i in zip(features.tolist(), index.tolist(), strict=True):
        logits = []
        for name in names:
            members = [row for row, label in zip(bank, classes, strict=True) if label == name]
            mean = [sum(column) / len(members) for column in zip(*members, strict=True)]
            logits.append(dot(feature, mean) / memory.temperature)
        total += cross_entropy(logits, names.index(classes[i])) / len(index)
    return total


def sequential_reference(memory, features, index):
    """Each feature in turn moves its row."""
    rows = rows_of(memory).tolist()
    for feature, i in zip(features.tolist(), index.tolist(), strict=True):
        rows[i] = follow(rows[i], feature, memory.momentum)
    return torch.tensor(rows, dtype=rows_of(memory).dtype)


def hard_reference(memory, features, labels):
    """Each cluster of the batch follows its first least similar feature."""
    rows = memory.centers.tolist()
    for name in set(labels.tolist()):
        own = [f for f, y in zip(features.tolist(), labels.tolist(), strict=True) if y == name]
        rows[name] = follow(rows[name], min(own, key=lambda f: dot(f, rows[name])), memory.momentum)
    return torch.tensor(rows, dtype=memory.centers.dtype)


def arrays_of(golden, name):
    return {key: torch.from_numpy(array) for key, array in golden(name).items()}


def test_released_hybrid_memory(golden):
    arrays = arrays_of(golden, "hybrid_memory")
    memory = HybridMemory(
        arrays["bank"],
        arrays["labels"],
        temperature=float(arrays["temperature"]),
        momentum=float(arrays["momentum"]),
    )
    features = arrays["inputs"].requires_grad_()
    loss = memory.loss(features, arrays["indexes"])
    loss.backward()
    memory.update(features, arrays["indexes"])
    # 1e-4: the released code adds 1e-6 in two places; the rows do not depend on it.
    torch.testing.assert_close(loss.detach(), arrays["loss"], rtol=0, atol=1e-4)
    torch.testing.assert_close(features.grad, arrays["grad"], rtol=0, atol=1e-4)
    torch.testing.assert_close(memory.bank, arrays["bank_after"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["cluster_memory", "cluster_memory_hard"])
def test_released_cluster_memory(name, golden):
    arrays = arrays_of(golden, name)
    memory = ClusterMemory(
        arrays["bank"],
        temperature=float(arrays["temperature"]),
        momentum=float(arrays["momentum"]),
        hard=name.endswith("hard"),
    )
    features = arrays["inputs"].requires_grad_()
    loss = memory.loss(features, arrays["targets"])
    loss.backward()
    memory.update(features, arrays["targets"])
    torch.testing.assert_close(loss.detach(), arrays["loss"], rtol=0, atol=1e-5)
    torch.testing.assert_close(features.grad, arrays["grad"], rtol=0, atol=1e-5)
    torch.testing.assert_close(memory.centers, arrays["bank_after"], rtol=0, atol=1e-5)


def test_defaults_are_the_published_settings():
    memory, other = hybrid(), clusters()
    assert (memory.temperature, memory.momentum) == (0.05, 0.2)
    assert (other.temperature, other.momentum, other.hard) == (0.05, 0.1, False)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_hybrid_loss_matches_loops(temperature):
    memory = hybrid(temperature=temperature, dtype=torch.float64)
    features, index = unit(4, seed=1, dtype=torch.float64), torch.tensor([0, 3, 6, 8])
    expected = hybrid_reference(memory, features, index)
    assert float(memory.loss(features, index)) == pytest.approx(expected, rel=1e-12)
    rounded = hybrid(temperature=temperature).loss(features.float(), index)
    assert float(rounded) == pytest.approx(expected, rel=1e-5)


def test_cluster_loss_matches_loops_and_does_not_depend_on_length():
    memory, labels = clusters(dtype=torch.float64), torch.tensor([4, 0, 0, 2])
    features = unit(4, seed=1, dtype=torch.float64)
    expected = sum(
        cross_entropy([dot(f, c) / 0.05 for c in memory.centers.tolist()], y) / 4
        for f, y in zip(features.tolist(), labels.tolist(), strict=True)
    )
    assert float(memory.loss(3 * features, labels)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("make", [hybrid, clusters])
def test_gradients(make):
    memory, index = make(dtype=torch.float64, temperature=0.5), torch.tensor([0, 3, 3])
    features = unit(3, seed=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: memory.loss(x, index), features)
    assert not list(memory.parameters())


@pytest.mark.parametrize("make", [hybrid, clusters])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_features", [0, 1, 12, 40])
def test_repeated_rows_move_as_in_the_loop(make, seed, num_features):
    memory = make(dtype=torch.float64)
    features = unit(num_features, seed=seed, dtype=torch.float64)
    index = torch.randint(0, 5, (num_features,), generator=torch.Generator().manual_seed(seed))
    expected = sequential_reference(memory, features, index)
    memory.update(features, index)
    torch.testing.assert_close(rows_of(memory), expected, rtol=0, atol=1e-12)


def test_there_are_as_many_passes_as_the_most_frequent_row_has_features(monkeypatch):
    memory, features, passes = hybrid(), unit(8, seed=1), []
    normalize = F.normalize
    monkeypatch.setattr(F, "normalize", lambda rows: passes.append(len(rows)) or normalize(rows))
    memory.update(features, torch.tensor([5, 2, 5, 0, 5, 1, 2, 8]))
    assert passes == [5, 2, 1]


@pytest.mark.parametrize("seed", range(3))
def test_hard_clusters_follow_their_least_similar_feature(seed):
    memory = clusters(hard=True, dtype=torch.float64)
    features = unit(20, seed=seed, dtype=torch.float64)
    labels = torch.randint(0, 4, (20,), generator=torch.Generator().manual_seed(seed))
    expected = hard_reference(memory, features, labels)
    memory.update(7 * features, labels)
    torch.testing.assert_close(memory.centers, expected, rtol=0, atol=1e-12)
    assert torch.equal(memory.centers[4], clusters(dtype=torch.float64).centers[4])


def test_of_equally_hard_features_the_first_is_followed():
    first, second = torch.eye(3)[1:]  # both at a right angle to the row
    for features in (torch.stack([first, second]), torch.stack([second, first])):
        memory = ClusterMemory(torch.eye(3)[:1], hard=True)
        memory.update(features, torch.zeros(2, dtype=torch.int64))
        expected = F.normalize(0.1 * torch.eye(3)[:1] + 0.9 * features[:1])
        torch.testing.assert_close(memory.centers, expected)


@pytest.mark.parametrize("make", [hybrid, clusters])
def test_a_batch_in_two_halves_gives_the_gradient_and_the_rows_of_the_whole(make):
    features, index = unit(8, seed=1), torch.tensor([0, 1, 1, 2, 1, 0, 0, 4])
    whole, halves = make(), make()
    given = {name: features.clone().requires_grad_() for name in ("whole", "halves")}
    whole.loss(given["whole"], index).backward()
    for part in (slice(0, 4), slice(4, 8)):
        (halves.loss(given["halves"][part], index[part]) / 2).backward()
    torch.testing.assert_close(given["halves"].grad, given["whole"].grad, rtol=0, atol=1e-6)
    whole.update(features, index)
    for part in (slice(0, 4), slice(4, 8)):
        halves.update(features[part], index[part])
    assert torch.equal(rows_of(halves), rows_of(whole))


@pytest.mark.parametrize("make", [hybrid, clusters])
def test_an_update_between_loss_and_backward_is_noticed(make):
    memory, index = make(), torch.tensor([0, 1])
    features = unit(2, seed=1).requires_grad_()
    loss = memory.loss(features, index)
    memory.update(features, index)
    assert not rows_of(memory).requires_grad
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("make", [hybrid, clusters])
def test_autocast_and_bfloat16_are_computed_in_float32(make):
    memory, index = make(), torch.tensor([0, 3, 3, 1])
    features = unit(4, seed=1)
    exact = memory.loss(features, index)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(memory.loss(features, index), exact)
    rounded = features.bfloat16().requires_grad_()
    loss = memory.loss(rounded, index)
    loss.backward()
    assert loss.dtype == torch.float32
    assert rounded.grad.dtype == torch.bfloat16
    assert torch.equal(loss, memory.loss(rounded.float(), index))
    other = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        memory.update(rounded, index)
    other.update(rounded.detach().float(), index)
    assert rows_of(memory).dtype == torch.float32
    assert torch.equal(rows_of(memory), rows_of(other))


def test_the_exact_loss_of_a_feature_opposite_to_its_class_is_finite():
    memory = HybridMemory(
        torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.arange(2), temperature=1e-3
    )
    features = torch.tensor([[-1.0, 0.0]], requires_grad=True)
    loss = memory.loss(features, torch.tensor([0]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2000.0)
    assert bool(features.grad.isfinite().all())


def test_new_labels_make_the_memory_that_has_them_from_the_start():
    memory, features, index = hybrid(), unit(4, seed=1), torch.tensor([0, 3, 6, 8])
    before = memory.loss(features, index)
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 3])
    memory.relabel(labels)
    assert torch.equal(memory.labels, labels)
    fresh = HybridMemory(memory.bank, labels)
    assert torch.equal(memory.loss(features, index), fresh.loss(features, index))
    assert not torch.equal(memory.loss(features, index), before)


def test_numbering_of_labels_does_not_matter():
    memory, features, index = hybrid(), unit(4, seed=1), torch.tensor([0, 3, 6, 8])
    renamed = HybridMemory(memory.bank, 200 - CLASSES)
    torch.testing.assert_close(renamed.loss(features, index), memory.loss(features, index))
    assert sorted(set(memory.labels.tolist())) == list(range(5))


def test_memories_start_again_with_any_number_of_rows():
    memory, other = hybrid(), clusters()
    rows = 3 * unit(4, seed=2)
    memory.reset(rows, torch.tensor([0, 0, 1, 2]))
    other.reset(rows)
    for found in (memory.bank, other.centers):
        torch.testing.assert_close(found, unit(4, seed=2))
    features, index = unit(2, seed=1), torch.tensor([3, 0])
    fresh = HybridMemory(rows, torch.tensor([0, 0, 1, 2]))
    assert torch.equal(memory.loss(features, index), fresh.loss(features, index))
    assert torch.equal(other.loss(features, index), ClusterMemory(rows).loss(features, index))


@pytest.mark.parametrize("make", [hybrid, clusters])
def test_a_saved_memory_goes_on_in_one_of_another_size(make):
    features, index = unit(6, seed=1), torch.tensor([0, 3, 3, 1, 0, 2])
    memory = make()
    memory.update(features, index)
    networks = torch.nn.ModuleDict({"memory": memory})
    saved = copy.deepcopy(networks.state_dict())
    empty = torch.zeros(2, D)
    other = ClusterMemory(empty) if make is clusters else HybridMemory(empty, torch.zeros(2).long())
    resumed = torch.nn.ModuleDict({"memory": copy.deepcopy(other)})
    resumed.load_state_dict(saved)
    assert len(rows_of(other)) == 2
    for each in (memory, resumed["memory"]):
        each.update(features.flip(0), index)
    assert torch.equal(rows_of(resumed["memory"]), rows_of(memory))
    assert torch.equal(resumed["memory"].loss(features, index), memory.loss(features, index))


@pytest.mark.parametrize("make", [hybrid, clusters])
def test_rows_are_copies_of_unit_length(make):
    given = 5 * torch.randn(9, D, generator=torch.Generator().manual_seed(0))
    given[3] = 0
    kept = given.clone()
    memory = ClusterMemory(given) if make is clusters else HybridMemory(given, CLASSES)
    for _ in range(3):
        memory.update(unit(6, seed=1), torch.tensor([0, 1, 1, 1, 2, 2]))
    lengths = rows_of(memory).norm(dim=1)
    expected = torch.ones(9)
    expected[3] = 0
    torch.testing.assert_close(lengths, expected)
    assert torch.equal(given, kept)
    assert bool(memory.loss(unit(2, seed=1), torch.tensor([0, 3])).isfinite())


@pytest.mark.parametrize("make", [hybrid, clusters])
@pytest.mark.parametrize("index", [-1, 9])
def test_rows_that_do_not_exist_are_refused(make, index):
    memory, features = make(), unit(1, seed=1)
    with pytest.raises(IndexError):
        memory.loss(features, torch.tensor([index]))
    with pytest.raises((IndexError, RuntimeError)):
        memory.update(features, torch.tensor([index]))


@pytest.mark.parametrize("make", [hybrid, clusters])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "above 0, got 0.0"),
        ({"momentum": -0.1}, "between 0 and 1, got -0.1"),
        ({"momentum": 1.5}, "between 0 and 1, got 1.5"),
    ],
)
def test_settings_no_memory_can_have_are_refused(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_rows_and_labels_no_memory_can_have_are_refused():
    rows = unit(9, seed=0)
    rows[4, 2] = math.nan
    for make in (lambda: ClusterMemory(rows), lambda: HybridMemory(rows, CLASSES)):
        with pytest.raises(ValueError, match="NaN or infinity"):
            make()
    with pytest.raises(ValueError, match="8 labels for 9 rows"):
        hybrid().relabel(CLASSES[1:])
    with pytest.raises(ValueError, match="label -1 is negative"):
        hybrid().relabel(torch.where(CLASSES == 99, -1, CLASSES))


def test_arrays_of_a_round_take_any_shape_and_are_restored():
    first = RoundMemory({"shares": torch.zeros(4, 2), "rows": torch.zeros(0, D)})
    first.keep({"rows": unit(3, seed=1), "shares": torch.rand(5, generator=seeded(2))})
    kept = {"shares": torch.zeros(4, 2), "rows": torch.zeros(7, D), "flag": torch.tensor(False)}
    second = RoundMemory(kept)
    second.keep({"flag": torch.tensor(True)})
    assert bool(second["flag"])
    second = RoundMemory({name: value for name, value in kept.items() if name != "flag"})
    second.load_state_dict(first.state_dict())
    assert torch.equal(second["rows"], unit(3, seed=1))
    assert torch.equal(second["shares"], first["shares"])
    with pytest.raises(AttributeError, match="other"):
        first.keep({"other": torch.zeros(1)})


def seeded(seed):
    return torch.Generator().manual_seed(seed)
