"""AssemblingKits: its solids, its boards, and when one is assembled."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from reprise.envs.maniskill import make_world
from reprise.envs.maniskill.kits import CELL, CLEARANCE, SHAPES, TILE, cells, kit, piece_boxes, slot_walls, symmetry
from reprise.envs.maniskill.poses import yaw_quaternion


def inside(boxes, points):
    return np.any([(points > [a, c]).all(-1) & (points < [b, d]).all(-1) for a, b, c, d in boxes], 0)


@pytest.fixture(scope="module")
def world():
    return make_world("AssemblingKits", obs_mode="state_dict")


def put(world, xy, yaw, z=0.0):
    world.set_pose("piece", [*xy, z], yaw_quaternion(yaw))
    mujoco.mj_forward(world.model, world.data)


def test_there_are_twenty_solids_and_no_two_are_the_same():
    assert len(SHAPES) == 20
    turned = {tuple(map(tuple, np.rot90(cells(shape), n).tolist())) for shape in SHAPES for n in range(4)}
    assert len(turned) == sum(round(symmetry(shape) / (np.pi / 2)) for shape in SHAPES)


@pytest.mark.parametrize("shape", SHAPES)
def test_boxes_cover_the_cells_once(shape):
    boxes = piece_boxes(shape)
    area = sum((b - a) * (d - c) for a, b, c, d in boxes)
    assert area == pytest.approx(cells(shape).sum() * CELL**2)
    assert inside(boxes, (np.argwhere(cells(shape)) + 0.5 - np.array(cells(shape).shape) / 2) * CELL).all()


def test_kits_vary():
    kits = [kit(seed) for seed in range(40)]
    assert {len(k.holes) for k in kits} == {4, 5, 6}
    assert all(len({slot.shape for slot in k.holes}) == len(k.holes) for k in kits)
    assert {slot.shape for k in kits for slot in k.holes} == set(SHAPES)


@pytest.mark.parametrize("seed", range(3))
def test_walls_leave_the_hole_and_nothing_else(seed):
    points = np.random.default_rng(0).uniform(-TILE / 2, TILE / 2, (4000, 2))
    for place, slot in enumerate(kit(seed).slots):
        walls = slot_walls(slot, place)
        centre = np.array([(place // 3 - 0.5) * TILE, (place % 3 - 1) * TILE])
        solid = inside(walls, points + centre)
        if slot is None:
            assert solid.all()
            continue
        angle = -slot.quarters * np.pi / 2
        back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        local = (points + centre - slot.position) @ back.T
        grown = [(a - CLEARANCE, b + CLEARANCE, c - CLEARANCE, d + CLEARANCE) for a, b, c, d in piece_boxes(slot.shape)]
        assert (solid != inside(grown, local)).all()


def test_the_piece_fits_its_hole_and_falls_in(world):
    for seed in range(6):
        world.reset(seed)
        put(world, world.slot.position, world.slot.quarters * np.pi / 2)
        walls = world.data.contact.geom[world.data.contact.dist < -1e-6]
        assert not np.isin(walls, world.geoms_of("piece")).any()
        assert world.success() and world.reward() == 1
        put(world, world.slot.position, world.slot.quarters * np.pi / 2, z=0.015)
        assert not world.success()
        world.drives.advance(150)
        world._update()
        assert world.success()


def test_turned_the_wrong_way_it_stays_on_top(world):
    world.reset(0)
    put(world, world.slot.position, world.slot.quarters * np.pi / 2 + np.pi / 4, z=0.0201)
    world.drives.advance(150)
    world._update()
    assert world.position("piece")[2] > 0.015 and not world.success()


def test_success_asks_for_place_turn_and_depth(world):
    world.reset(1)
    yaw, (x, y) = world.slot.quarters * np.pi / 2, world.slot.position
    for (dx, turn, z), success in (
        ((0.0, 0.0, 0.0), True), ((0.019, 0.0, 0.0), True), ((0.021, 0.0, 0.0), False),
        ((0.0, np.radians(3.9), 0.0), True), ((0.0, np.radians(-4.1), 0.0), False),
        ((0.0, 0.0, 0.0029), True), ((0.0, 0.0, 0.0031), False),
        ((0.0, symmetry(world.slot.shape), 0.0), True),
    ):  # fmt: skip
        put(world, (x + dx, y), yaw + turn, z)
        assert world.success() == success, (dx, turn, z)


def test_a_turn_by_less_than_the_symmetry_is_wrong(world):
    for seed in range(30):
        world.reset(seed)
        if symmetry(world.slot.shape) > 2:
            put(world, world.slot.position, (world.slot.quarters + 1) * np.pi / 2)
            assert not world.success()
            return
    raise AssertionError("no such shape was drawn")


def test_it_starts_flat_on_the_board_beside_the_hole(world):
    for seed in range(5):
        world.reset(seed)
        before = world.position("piece")
        world.drives.advance(100)
        world._update()
        np.testing.assert_allclose(world.position("piece"), before, atol=1e-3)
        assert np.linalg.norm(before[:2] - world.slot.position) > 0.07


def test_only_the_goal_is_masked(world):
    world.reset(2)
    mask = world.goal_mask()
    assert mask.shape == (128, 128) and 20 < mask.sum() < 1500
    put(world, world.slot.position, world.slot.quarters * np.pi / 2)
    assert world.goal_mask().sum() < 0.1 * mask.sum()  # the piece is in
