"""Built-in worlds of vehicles: identities, views, sizes, and how far one is like another."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from reid.data import datasets, vehicle
from reid.data.appearance import Moment, draw_camera
from reid.data.drawing import Stage, build_stage, draw_image
from reid.data.solid import Brush, rectangle
from reid.data.synthetic import WorldConfig, write_world
from reid.data.vehicle import Vehicle, draw_vehicle, draw_vehicle_moment
from reid.data.vehicle_shapes import SHAPES

SMALL = WorldConfig(
    domain="a",
    subject="vehicle",
    num_train_identities=5,
    num_test_identities=3,
    num_train_images=33,
    num_test_images_per_identity=9,
    num_distractors=4,
    num_junk=3,
    height=32,
    width=32,
)
STILL = Moment(
    view="front_left", stride=0.5, swing=0.0, shift_x=0.0, shift_y=0.0, scale=1.0, gain=1.0,
    place=0.5, occluder=None,
)  # fmt: skip


def rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


@pytest.fixture(scope="module")
def stage() -> Stage:
    camera = replace(draw_camera(rng(0), "a"), noise=0.0, blur=0.0)
    return build_stage(camera, "a", height=64, width=64)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("worlds")
    write_world(root / "a", SMALL)
    write_world(root / "b", replace(SMALL, domain="b"))
    return root


def drawn(stage: Stage, subject: Vehicle, moment: Moment = STILL) -> np.ndarray:
    return draw_image(stage, subject, moment, noise=rng(1)).astype(int)


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_same_world_is_drawn_again_and_another_seed_gives_another(worlds, tmp_path):
    write_world(tmp_path / "same", SMALL)
    write_world(tmp_path / "other", replace(SMALL, seed=1))
    first, other = contents(worlds / "a"), contents(tmp_path / "other")
    assert contents(tmp_path / "same") == first
    assert not set(first.values()) & set(other.values())


def test_worlds_are_read_by_name_and_share_no_identity(worlds):
    data = [datasets.load(f"synthetic_vehicle_{domain}", worlds / domain) for domain in "ab"]
    assert [dataset.name for dataset in data] == ["synthetic_vehicle_a", "synthetic_vehicle_b"]
    for dataset in data:
        assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (33, 6, 21 + 4 + 3)
        assert dataset.train.modality is None
    groups = [set(split.pid) for dataset in data for split in (dataset.train, dataset.query)]
    assert len(set.union(*groups)) == 2 * (5 + 3)
    with Image.open(data[0].train.path[0]) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (32, 32), "RGB")


def test_domain_b_is_darker_and_less_saturated(worlds):
    def mean_hsv(domain: str) -> np.ndarray:
        files = sorted((worlds / domain / "bounding_box_train").iterdir())
        return np.mean([np.asarray(Image.open(file).convert("HSV")) for file in files], (0, 1, 2))

    (_, saturation_a, value_a), (_, saturation_b, value_b) = mean_hsv("a"), mean_hsv("b")
    assert value_b < 0.7 * value_a
    assert saturation_b < saturation_a


def test_a_world_of_persons_is_not_taken_for_one_of_vehicles(worlds):
    with pytest.raises(ValueError, match="subject is 'vehicle' there and 'person' here"):
        write_world(worlds / "a", replace(SMALL, subject="person"))


@pytest.mark.parametrize("body", vehicle.BODIES)
def test_views_and_bodies_differ(stage, body):
    subject = replace(draw_vehicle(rng(2), "a"), body=body)
    images = [drawn(stage, subject, replace(STILL, view=view)) for view in vehicle.VIEWS]
    for first, second in itertools.combinations(images, 2):
        assert np.abs(first - second).mean() > 2
    others = [
        drawn(stage, replace(subject, body=other)) for other in vehicle.BODIES if other != body
    ]
    for other in others:
        assert np.abs(drawn(stage, subject) - other).mean() > 2


@pytest.mark.parametrize("body", vehicle.BODIES)
def test_left_and_right_of_a_vehicle_mirror_each_other(stage, body):
    # Before nothing, in even light: all that is left to differ is the vehicle.
    subject = replace(draw_vehicle(rng(2), "a"), body=body)
    wall = Image.new("RGB", stage.scene.size, (90, 90, 90))
    flat = replace(stage, scene=wall, light=np.ones_like(stage.light))
    right, left = (drawn(flat, subject, replace(STILL, view=view)) for view in ("right", "left"))
    assert np.abs(right - left[:, ::-1]).mean() < 0.8 * np.abs(right - left).mean()


@pytest.mark.parametrize(
    "change",
    [
        {"decal": "disc"},
        {"decal": "letters"},
        {"stripe": "side"},
        {"stripe": "wedge"},
        {"stripe": "lengthwise"},
        {"two_tone": "roof"},
        {"two_tone": "lower"},
        {"roof": "rack"},
        {"roof": "box"},
        {"wheels": "covers"},
        {"lights": "tall"},
        {"dark_bumpers": True},
    ],
)
@pytest.mark.parametrize("body", ["sedan", "suv", "bus"])
def test_details_tell_two_vehicles_of_one_type_and_colour_apart(stage, body, change):
    plain = replace(
        draw_vehicle(rng(3), "a"), body=body, paint=(216, 28, 34), second=(240, 240, 240),
        decal_color=(28, 84, 214), metal=(206, 208, 212), two_tone="none", stripe="none",
        decal="none", roof="none", wheels="hubs", lights="round", dark_bumpers=False,
    )  # fmt: skip
    difference = np.abs(drawn(stage, plain) - drawn(stage, replace(plain, **change))).max(axis=2)
    assert (difference > 40).sum() >= 8


def test_an_identity_is_nearer_to_itself_than_to_others(stage):
    turned = replace(STILL, swing=0.4, scale=1.03)
    fleet = [draw_vehicle(rng(4, key), "a") for key in range(12)]
    first, second = (
        np.stack([drawn(stage, subject, moment) for subject in fleet]) for moment in (STILL, turned)
    )
    distance = np.abs(first[:, None] - second[None]).mean(axis=(2, 3, 4))
    assert (distance.argmin(axis=1) == np.arange(12)).mean() > 0.9


@pytest.mark.parametrize("view", vehicle.VIEWS)
@pytest.mark.parametrize("body", vehicle.BODIES)
def test_a_vehicle_fills_its_image_and_stays_inside(stage, body, view):
    white = replace(draw_vehicle(rng(5), "a"), body=body, roof="none")
    flat = replace(stage, scene=Image.new("RGB", stage.scene.size, (0, 255, 0)))
    image = drawn(flat, white, replace(STILL, view=view))
    green = image[0, 0]
    shown = np.abs(image - green * (stage.light / stage.light[0, 0])).max(axis=2) > 60
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    spans = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    assert max(spans) > 0.75 * 64
    assert rows[0] > 0
    assert min(spans) > 0.25 * 64


def test_all_that_an_identity_is_drawn_from_is_drawn():
    fleet = [draw_vehicle(rng(6, key), "b") for key in range(400)]
    for name, values in (
        ("body", vehicle.BODIES), ("two_tone", vehicle.TWO_TONES), ("stripe", vehicle.STRIPES),
        ("decal", vehicle.DECALS), ("wheels", vehicle.WHEELS), ("roof", vehicle.ROOFS),
        ("lights", vehicle.LIGHTS), ("glazed", (False, True)), ("dark_bumpers", (False, True)),
    ):  # fmt: skip
        assert {getattr(subject, name) for subject in fleet} == set(values), name
    views = [draw_vehicle_moment(rng(7, key), "b").view for key in range(200)]
    assert set(views) == set(vehicle.VIEWS)


def test_surfaces_that_turn_away_are_not_painted():
    canvas = Image.new("RGB", (20, 20))
    brush = Brush(
        draw=ImageDraw.Draw(canvas),
        yaw=(0.0, 1.0),
        pitch=(0.0, 1.0),
        left=10.0,
        top=20.0,
        scale=10.0,
    )
    square = rectangle(-0.5, 0.5, 0.5, 1.5)
    brush.rear(square, -1.0, (255, 0, 0))
    brush.sides(square, 0.5, (255, 0, 0))
    assert canvas.getbbox() is None
    brush.front(square, 0.0, (0, 255, 0))
    left, top, right, bottom = canvas.getbbox()
    assert (left, top) == (5, 5)
    assert (right, bottom) == (16, 16)
    # Heading right, a point in front is at the right; above the ground is up.
    turned = replace(brush, yaw=(1.0, 0.0))
    assert turned.at((0.5, 0.0, 0.0)) == pytest.approx((15, 20))
    assert turned.at((0.0, 0.0, 1.0)) == pytest.approx((10, 10))


@pytest.mark.parametrize("body", SHAPES)
def test_hulls_are_convex_and_counter_clockwise(body):
    hull = np.array(SHAPES[body].hull)
    edge = np.roll(hull, -1, axis=0) - hull
    after = np.roll(edge, -1, axis=0)
    assert (edge[:, 0] * after[:, 1] - edge[:, 1] * after[:, 0] > 0).all()
