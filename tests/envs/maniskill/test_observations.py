"""Observation modes: what is in each, and that pictures and points are where the things are."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from reprise.envs.maniskill import MujocoRenderer, make_task, make_world


def test_state_is_the_dictionary_laid_flat():
    world = make_world("PickCube", obs_mode="state_dict", control_mode="pd_joint_target_delta_pos")
    world.reset(2)
    nested = world.observe()
    assert list(nested) == ["agent", "extra"]
    assert list(nested["agent"]) == ["qpos", "qvel", "base_pose", "controller"]
    np.testing.assert_allclose(nested["agent"]["base_pose"], [-0.615, 0, 0, 1, 0, 0, 0], atol=1e-7)
    assert list(nested["extra"]) == ["tcp_pose", "goal_pos", "obj_pose", "tcp_to_obj_pos", "obj_to_goal_pos"]
    world.obs_mode = "state"
    flat = world.observe()
    assert flat.dtype == np.float32 and flat.shape == (9 + 9 + 7 + 7 + 7 + 3 + 7 + 3 + 3,)
    np.testing.assert_array_equal(flat[:9], nested["agent"]["qpos"])
    np.testing.assert_array_equal(flat[-3:], nested["extra"]["obj_to_goal_pos"])
    assert make_world("PickCube", obs_mode="none").observe() is None


@pytest.mark.parametrize("mode", ["image", "rgbd", "rgbd+robot_seg", "pointcloud", "pointcloud+robot_seg"])
def test_visual_modes(mode, ray_renderer):
    env = make_task("StackCube", mode, renderer=ray_renderer, image_size=(24, 32))
    observation, _ = env.reset(options={"episode_seed": 0})
    assert env.observation_space.contains(observation)
    assert list(observation["extra"]) == ["tcp_pose"]  # nothing that only the state knows
    if mode.startswith("pointcloud"):
        cloud = observation["pointcloud"]
        assert cloud["xyzw"].shape == (2 * 24 * 32, 4) and cloud["rgb"].shape == (2 * 24 * 32, 3)
        assert ("robot_seg" in cloud) == mode.endswith("seg")
        return
    assert list(observation["image"]) == list(observation["camera_param"]) == ["base_camera", "hand_camera"]
    view = observation["image"]["base_camera"]
    if mode == "image":
        assert view["Color"].shape == view["Position"].shape == view["Segmentation"].shape == (24, 32, 4)
        assert view["Segmentation"].dtype == np.uint32 and view["Color"].max() <= 1
        model = env.world.worlds[0].model
        bodies = {model.body(int(i) - 1).name for i in np.unique(view["Segmentation"][..., 1]) if i}
        assert {"cubeA", "cubeB", "world"} <= bodies
    else:
        assert view["rgb"].shape == (24, 32, 3) and view["rgb"].dtype == np.uint8
        assert view["depth"].shape == (24, 32, 1) and view["depth"].dtype == np.float32


def test_points_lie_on_the_faces_of_the_cube(ray_renderer):
    world = make_world("PickCube", obs_mode="pointcloud", renderer=ray_renderer, image_size=(96, 96))
    world.reset(1)
    world.observe()
    cloud = world.observe()["pointcloud"]["xyzw"]
    cube = world.pose("cube")
    local = (cloud[:, :3] - cube[:3, 3]) @ cube[:3, :3]
    near = (np.abs(local).max(1) < 0.022) & (cloud[:, 3] == 1) & (cloud[:, 2] > 0.002)
    assert near.sum() > 10
    assert np.abs(np.abs(local[near]).max(1) - 0.02).max() < 1e-3
    floor = (cloud[:, 3] == 1) & (np.abs(local).max(1) > 0.3) & (cloud[:, 2] < 0.02)
    assert np.abs(cloud[floor, 2]).max() < 1e-4


def test_background_has_no_depth_and_no_weight(ray_renderer):
    class Up(type(make_world("PickCube"))):
        camera = ((0.3, 0, 0.6), (-0.1, 0, 1.5))  # half of it sees the sky

    world = Up("rgbd", renderer=ray_renderer, image_size=(16, 16))
    depth = world.observe()["image"]["base_camera"]["depth"]
    assert (depth == 0).any()
    world.obs_mode = "pointcloud"
    cloud = world.observe()["pointcloud"]["xyzw"][:256]
    assert np.array_equal(cloud[:, 3] == 0, depth.ravel() == 0)
    assert (cloud[cloud[:, 3] == 0] == 0).all()


def test_matrices_of_a_camera_project_what_it_sees(ray_renderer):
    world = make_world("PickCube", obs_mode="image", renderer=ray_renderer, image_size=(48, 64))
    world.reset(1)
    observation = world.observe()
    parameters = observation["camera_param"]["base_camera"]
    view = observation["image"]["base_camera"]
    points = world.position("cube")
    local = parameters["extrinsic_cv"][:3] @ np.append(points, 1)
    u, v, w = parameters["intrinsic_cv"] @ local
    seen = view["Segmentation"][int(v / w), int(u / w), 1]
    assert world.model.body(int(seen) - 1).name == "cube"
    np.testing.assert_allclose(parameters["cam2world_gl"][:3, 3], [0.3, 0, 0.6], atol=1e-6)
    ahead = -parameters["cam2world_gl"][:3, 2]
    np.testing.assert_allclose(np.cross(ahead, [-0.4, 0, -0.5]), 0, atol=1e-6)


def test_people_see_the_goal_and_cameras_do_not():
    world = make_world("PickCube", obs_mode="rgbd", image_size=(32, 32))
    world.reset(1)
    pictures = []
    for place in (world.goal, [0, 0, -1]):
        world.set_pose("goal", place)
        mujoco.mj_forward(world.model, world.data)
        pictures.append((world.observe()["image"]["base_camera"]["rgb"], world.picture(120, 160)))
    assert np.array_equal(pictures[0][0], pictures[1][0]) and not np.array_equal(pictures[0][1], pictures[1][1])


def test_pictures_follow_the_scene_when_it_is_rebuilt(ray_renderer):
    world = make_world("PegInsertionSide", obs_mode="rgbd", image_size=(24, 32))
    peer = make_world("PegInsertionSide", obs_mode="rgbd", image_size=(24, 32), renderer=ray_renderer)
    for seed in (0, 1, 0):
        world.reset(seed)
        peer.reset(seed)
        for camera in world.cameras:
            drawn, cast = world.draw(camera), peer.draw(camera)
            same = drawn[2] == cast[2]
            assert same.mean() > 0.97  # they may differ along edges
            np.testing.assert_allclose(drawn[1][same], cast[1][same], atol=1e-4)
        seen = {world.model.body(body).name for body in world.model.geom_bodyid[np.unique(drawn[2][drawn[2] >= 0])]}
        assert {"finger1", "finger2"} <= seen


def test_the_hand_camera_looks_along_the_hand():
    world = make_world("PickCube")
    world.reset(0)
    camera, hand = world.data.camera("hand_camera"), world.pose("hand")
    np.testing.assert_allclose(-camera.xmat.reshape(3, 3)[:, 2], hand[:3, 2], atol=1e-12)
    np.testing.assert_allclose((camera.xpos - hand[:3, 3]) @ hand[:3, :3], [0.0465, -0.02, 0.036], atol=1e-12)


def test_mujocos_renderer_agrees_with_rays():
    try:
        renderer = MujocoRenderer()
    except RuntimeError as error:
        pytest.skip(str(error))
    world = make_world("PickCube", obs_mode="rgbd", image_size=(48, 48))
    peer = make_world("PickCube", obs_mode="rgbd", image_size=(48, 48), renderer=renderer)
    cast, drawn = world.draw("base_camera"), peer.draw("base_camera")
    same = drawn[2] == cast[2]
    assert same.mean() > 0.97
    assert np.abs(drawn[1] - cast[1])[same].max() < 5e-3
    renderer.close()
