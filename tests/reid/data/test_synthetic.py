"""The built-in worlds: determinism, layout, no shared identities, whole folders or none."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid.data.appearance import Moment, draw_camera, draw_moment, draw_person
from reid.data.datasets import market1501
from reid.data.drawing import build_stage, draw_image, encode_jpeg
from reid.data.synthetic import WorldConfig, write_world

SMALL = WorldConfig(
    domain="a",
    num_train_identities=5,
    num_test_identities=3,
    num_train_images=33,
    num_test_images_per_identity=9,
    num_distractors=4,
    num_junk=3,
    height=32,
    width=16,
)


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("world") / "a"
    write_world(root, SMALL)
    return root


def test_same_seed_same_bytes_for_any_number_of_workers(world, tmp_path):
    write_world(tmp_path / "two", SMALL, num_workers=2)
    assert contents(tmp_path / "two") == contents(world)


def test_an_image_follows_from_its_camera_its_person_and_its_number(world):
    def rng(*key: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((0, 0, *key))))

    train = market1501.read(world).train
    for path, pid, camid in list(zip(train.path, train.pid, train.camid, strict=True))[::8]:
        image_rng = rng(4, int(Path(path).name.split("_")[2]))
        stage = build_stage(draw_camera(rng(0, int(camid)), "a"), "a", height=32, width=16)
        person, moment = draw_person(rng(1, int(pid)), "a"), draw_moment(image_rng, "a")
        image = draw_image(stage, person, moment, noise=image_rng)
        assert Path(path).read_bytes() == encode_jpeg(image)


def test_a_world_of_visible_persons_is_described_as_before_there_were_others(world):
    described = json.loads((world / "world.json").read_text())
    assert not {"subject", "infrared_cameras"} & set(described)
    with pytest.raises(ValueError, match="infrared_cameras is 0 there and 2 here; delete"):
        write_world(world, replace(SMALL, infrared_cameras=2))


def test_another_seed_gives_another_world_of_the_same_size(world, tmp_path):
    write_world(tmp_path / "other", replace(SMALL, seed=1))
    ours, other = contents(world), contents(tmp_path / "other")
    assert len(ours) == len(other)
    assert not set(ours.values()) & set(other.values())


def test_the_reader_finds_what_the_configuration_says(world):
    dataset = market1501.read(world)
    assert len(dataset.train) == 33
    assert sorted(np.unique(dataset.train.pid, return_counts=True)[1]) == [6, 6, 7, 7, 7]
    assert len(dataset.query) == 3 * 2
    assert len(dataset.gallery) == 3 * 7 + 4 + 3
    assert (dataset.gallery.pid == 0).sum() == 4
    assert (dataset.gallery.pid == -1).sum() == 3
    assert set(dataset.gallery.pid) - {0, -1} == set(dataset.query.pid)
    with Image.open(dataset.train.path[0]) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (16, 32), "RGB")


def test_every_query_has_a_match_from_another_camera(world):
    dataset = market1501.read(world)
    for pid, camid in zip(dataset.query.pid, dataset.query.camid, strict=True):
        assert (dataset.gallery.camid[dataset.gallery.pid == pid] != camid).any()
    for pid in np.unique(dataset.query.pid):
        assert len(set(dataset.query.camid[dataset.query.pid == pid])) == 2
        assert len(set(dataset.gallery.camid[dataset.gallery.pid == pid])) >= 4


def test_train_test_and_the_two_domains_share_no_identity(world, tmp_path):
    write_world(tmp_path / "b", replace(SMALL, domain="b"))
    a, b = market1501.read(world), market1501.read(tmp_path / "b")
    groups = [set(split.pid) for split in (a.train, a.query, b.train, b.query)]
    assert len(set.union(*groups)) == sum(len(group) for group in groups) == 5 + 3 + 5 + 3


def test_domain_b_is_darker_and_less_saturated(world, tmp_path):
    write_world(tmp_path / "b", replace(SMALL, domain="b"))

    def mean_hsv(root: Path) -> np.ndarray:
        images = (Image.open(path).convert("HSV") for path in market1501.read(root).train.path)
        return np.mean([np.asarray(image).mean(axis=(0, 1)) for image in images], axis=0)

    (_, saturation_a, value_a), (_, saturation_b, value_b) = (
        mean_hsv(world),
        mean_hsv(tmp_path / "b"),
    )
    assert value_b < 0.7 * value_a
    assert saturation_b < saturation_a


def test_an_identity_is_nearer_to_itself_than_to_others_under_one_camera():
    def rng(*key: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))

    stage = build_stage(draw_camera(rng(0), "b"), "b", height=64, width=32)
    still = Moment(
        view="front", stride=0.5, swing=0.0, shift_x=0.0, shift_y=0.0, scale=1.0, gain=1.0,
        place=0.5, occluder=None,
    )  # fmt: skip
    turned = replace(still, view="back", stride=0.6, scale=1.03)
    people = [draw_person(rng(1, key), "b") for key in range(12)]
    first, second = (
        np.stack(
            [
                draw_image(stage, person, moment, noise=rng(2, key))
                for key, person in enumerate(people)
            ]
        ).astype(np.float64)
        for moment in (still, turned)
    )
    distance = np.abs(first[:, None] - second[None]).mean(axis=(2, 3, 4))
    assert (distance.argmin(axis=1) == np.arange(12)).mean() > 0.9


def test_a_complete_world_is_left_alone(world):
    def fail(done: int, total: int) -> None:
        raise AssertionError("drawn again")

    before = (world / "world.json").stat().st_mtime_ns
    write_world(world, SMALL, progress=fail)
    assert (world / "world.json").stat().st_mtime_ns == before


def test_another_configuration_in_the_same_folder_is_refused(world):
    with pytest.raises(
        ValueError, match="height is 32 there and 48 here; seed is 0 there and 7 here"
    ):
        write_world(world, replace(SMALL, height=48, seed=7))


def test_a_world_drawn_by_another_version_is_refused(tmp_path):
    write_world(tmp_path / "w", SMALL)
    described = json.loads((tmp_path / "w" / "world.json").read_text())
    (tmp_path / "w" / "world.json").write_text(json.dumps({**described, "drawing_version": 0}))
    with pytest.raises(ValueError, match="drawing_version is 0 there"):
        write_world(tmp_path / "w", SMALL)


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"is no built-in world \(it has no world\.json\)"):
        write_world(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_nothing_and_can_be_repeated(world, tmp_path, error):
    def interrupt(done: int, total: int) -> None:
        raise error

    with pytest.raises(error):
        write_world(tmp_path / "w", SMALL, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "w").mkdir()  # an empty folder is as good as none
    write_world(tmp_path / "w", SMALL)
    assert contents(tmp_path / "w") == contents(world)


def test_progress_ends_at_the_number_of_images(tmp_path):
    calls: list[tuple[int, int]] = []
    write_world(tmp_path / "w", SMALL, progress=lambda done, total: calls.append((done, total)))
    total = 33 + 3 * 9 + 4 + 3
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_cameras": 1}, "num_cameras is 1"),
        ({"num_cameras": 10}, "num_cameras is 10"),
        ({"num_test_identities": 1}, "at least 2 training and 2 test"),
        ({"num_train_identities": 4998, "num_train_images": 9999}, "4999 identities"),
        ({"num_train_images": 4}, "leaves some of the 5"),
        ({"num_queries_per_identity": 5}, "num_queries_per_identity is 5"),
        ({"num_test_images_per_identity": 3}, "num_test_images_per_identity=3 must exceed"),
        ({"width": 8}, "32 x 8 are too small"),
        ({"seed": -1}, "0 or more"),
        ({"subject": "vehicle"}, "32 x 16 are not square"),
        ({"infrared_cameras": 6}, "infrared_cameras is 6; of 6 cameras one or more are visible"),
        ({"infrared_cameras": 1}, "each of 2 queries is from another infrared one"),
        ({"infrared_cameras": -1}, "infrared_cameras is -1"),
    ],
)
def test_impossible_worlds_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)
