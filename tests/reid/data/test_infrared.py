"""Built-in worlds seen in visible and in infrared light."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid.data import datasets
from reid.data.appearance import Camera, draw_camera, draw_person
from reid.data.infrared import draw_infrared, infrared_camera
from reid.data.synthetic import WorldConfig, write_world
from reid.data.vehicle import draw_vehicle
from reid.types import Dataset

SMALL = WorldConfig(
    domain="a",
    infrared_cameras=2,
    num_train_identities=5,
    num_test_identities=3,
    num_train_images=33,
    num_test_images_per_identity=9,
    num_distractors=4,
    num_junk=3,
    height=32,
    width=16,
)


def rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("worlds")
    for domain in ("a", "b"):
        write_world(root / domain, replace(SMALL, domain=domain))
    return root


@pytest.fixture(scope="module")
def world(worlds) -> Dataset:
    return datasets.load("synthetic_infrared_a", worlds / "a")


def test_modality_follows_from_the_camera(world):
    assert world.name == "synthetic_infrared_a"
    for split in (world.train, world.query, world.gallery):
        assert split.modality.dtype == np.int64
        assert split.modality.tolist() == [int(camid in (4, 5)) for camid in split.camid]
    assert set(world.train.modality) == {0, 1}


def test_infrared_images_are_grey_and_others_are_not(world):
    for split in (world.train, world.query, world.gallery):
        for path, modality in zip(split.path, split.modality, strict=True):
            with Image.open(path) as image:
                assert (image.size, image.mode) == ((16, 32), "RGB")
                pixels = np.asarray(image).astype(int)
            assert bool((np.ptp(pixels, axis=2) == 0).all()) == bool(modality)


def test_everybody_is_seen_both_ways_and_infrared_queries_search_visible_images(world):
    for pid in np.unique(world.train.pid):
        assert set(world.train.modality[world.train.pid == pid]) == {0, 1}
    assert (len(world.query), len(world.gallery)) == (3 * 2, 3 * 7 + 4 + 3)
    assert set(world.query.modality) == {1}
    assert set(world.gallery.modality) == {0}
    for pid in np.unique(world.query.pid):
        assert sorted(world.query.camid[world.query.pid == pid]) == [4, 5]
        assert set(world.gallery.camid[world.gallery.pid == pid]) == {0, 1, 2, 3}


def test_two_images_of_a_person_show_both(tmp_path):
    write_world(tmp_path / "w", replace(SMALL, num_train_images=10))
    train = datasets.load("synthetic_infrared_b", tmp_path / "w").train
    assert [set(train.modality[train.pid == pid]) for pid in np.unique(train.pid)] == [{0, 1}] * 5


def test_worlds_are_deterministic_and_share_no_identity(worlds, world, tmp_path):
    write_world(tmp_path / "a", SMALL)
    for path in world.train.path[:12]:
        assert (tmp_path / "a/bounding_box_train" / Path(path).name).read_bytes() == Path(
            path
        ).read_bytes()
    other = datasets.load("synthetic_infrared_b", worlds / "b")
    groups = [set(split.pid) for data in (world, other) for split in (data.train, data.query)]
    assert len(set.union(*groups)) == 2 * (5 + 3)


def test_a_world_without_infrared_cameras_is_refused(worlds, tmp_path):
    write_world(tmp_path / "visible", replace(SMALL, infrared_cameras=0))
    with pytest.raises(ValueError, match=r"visible is no built-in world with infrared cameras"):
        datasets.load("synthetic_infrared_a", tmp_path / "visible")
    (tmp_path / "visible" / "world.json").unlink()
    with pytest.raises(ValueError, match=r"expected a world\.json in it"):
        datasets.load("synthetic_infrared_a", tmp_path / "visible")
    assert json.loads((worlds / "a" / "world.json").read_text())["infrared_cameras"] == 2


@pytest.mark.parametrize("draw", [draw_person, draw_vehicle])
def test_infrared_keeps_the_shape_and_makes_every_colour_a_grey(draw):
    subject = draw(rng(1), "a")
    infrared = draw_infrared(rng(2), subject)
    for field in fields(subject):
        before, after = getattr(subject, field.name), getattr(infrared, field.name)
        if isinstance(before, tuple):
            assert len(set(after)) == 1
            assert 0 <= after[0] <= 255
        else:
            assert after == before


def test_reflectance_is_of_the_material_not_of_the_colour():
    pairs = [
        (person, draw_infrared(rng(4, key), person))
        for key in range(300)
        for person in [draw_person(rng(3, key), "a")]
    ]
    assert min(infrared.skin[0] for _, infrared in pairs) > 190
    assert max(infrared.hair[0] for _, infrared in pairs) < 120
    colors = np.array([np.mean(person.upper) for person, _ in pairs])
    greys = np.array([infrared.upper[0] for _, infrared in pairs])
    assert abs(np.corrcoef(colors, greys)[0, 1]) < 0.2  # 3.5 standard errors of 300 draws
    assert np.ptp(greys) > 150
    # Two garments of one colour may differ, and the same identity looks the same each time.
    person = pairs[0][0]
    assert draw_infrared(rng(5), person).upper != draw_infrared(rng(6), person).upper
    assert draw_infrared(rng(5), person) == draw_infrared(rng(5), person)


def test_an_infrared_camera_is_softer_and_noisier_and_has_one_channel():
    camera: Camera = draw_camera(rng(7), "a")
    infrared = infrared_camera(camera)
    assert infrared.infrared
    assert not camera.infrared
    assert infrared.blur > camera.blur
    assert infrared.noise > camera.noise
    assert (infrared.color == infrared.color[0]).all()
    # White stays as bright as it was on average.
    assert infrared.color[0].sum() == pytest.approx(camera.color.sum(axis=1).mean(), rel=1e-5)
