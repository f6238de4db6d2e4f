from dataclasses import replace

import mujoco
import numpy as np
import pytest

from reprise.envs import Camera, Look, Poses, RayCaster

WEDGE = "0 0 0  .2 0 0  .2 .15 0  0 .15 0  .1 .05 .2  .12 .1 .18"
WORLD = """
<mujoco>
  <asset>
    <mesh name="rock" vertex="{wedge}"/>
    <texture name="tiles" type="2d" builtin="checker" rgb1=".8 .8 .8" rgb2=".6 .6 .6" width="32" height="32"/>
    <material name="tiles" texture="tiles" texrepeat="2 2" texuniform="true"/>
  </asset>
  <worldbody>
    <light directional="true" dir="-.3 .4 -1"/>
    <camera name="front" pos="0 -1.6 1.1" xyaxes="1 0 0 0 .55 .83"/>
    <camera name="lens" pos="1.4 0 .6" xyaxes="0 1 0 -.3 0 1" sensorsize=".004 .003" focal=".004 .0035"
            principal=".0003 -.0002" resolution="64 48"/>
    <geom name="floor" type="plane" size="0 0 .1" material="tiles"/>
    <geom name="wall" type="plane" size=".5 .3 .1" pos="0 .8 .4" euler="90 0 0" rgba=".5 .7 .6 1"/>
    {bodies}
  </worldbody>
</mujoco>
"""
SHAPES = {
    "box": 'type="box" size=".1 .07 .13"',
    "sphere": 'type="sphere" size=".11"',
    "capsule": 'type="capsule" size=".06 .12"',
    "cylinder": 'type="cylinder" size=".08 .1"',
    "ellipsoid": 'type="ellipsoid" size=".15 .08 .05"',
    "mesh": 'type="mesh" mesh="rock"',
}


def draws(model, *where, **options):
    """With shadows and all channels: one compiled version for all tests; the example in the docstring is the other."""
    return RayCaster(model, *where, channels=("rgb", "depth", "geom", "body"), shadows=True, **options)


def world(seed, shapes=tuple(SHAPES)):
    """Two of each shape, turned and placed at random."""
    generator = np.random.default_rng(seed)
    bodies = ""
    for shape in shapes * 2:
        x, y, z = generator.uniform((-0.5, -0.5, 0.0), (0.5, 0.5, 0.6))
        turn = " ".join(f"{angle:.1f}" for angle in generator.uniform(0, 360, 3))
        rgba = " ".join(f"{part:.2f}" for part in generator.uniform(0.2, 0.9, 3))
        bodies += f'<body pos="{x} {y} {z}" euler="{turn}"><freejoint/><geom {SHAPES[shape]} rgba="{rgba} 1"/></body>\n'
    model = mujoco.MjModel.from_xml_string(WORLD.format(wedge=WEDGE, bodies=bodies))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def cast_by_mujoco(model, data, caster, eye, turn, camera=0):
    """Geom ids and planar depth by mj_multiRay, which counts in lengths of the rays that it is given."""
    rays = np.ascontiguousarray((caster.rays(camera) @ turn.T).reshape(-1, 3))
    ids, distance = np.zeros(len(rays), np.int32), np.zeros(len(rays))
    mujoco.mj_multiRay(model, data, eye, rays.ravel(), None, True, -1, ids, distance, None, len(rays), 1e9)
    shape = caster.height, caster.width
    return ids.reshape(shape), distance.reshape(shape)


@pytest.fixture(scope="module")
def scene():
    return world(0)


@pytest.mark.parametrize("seed", range(6))
def test_ids_and_depth_agree_with_mujoco(seed):
    model, data = world(seed)
    caster = draws(model, 64, 48)
    pictures = caster.render(data)
    for camera in range(2):
        turn = data.cam_xmat[camera].reshape(3, 3)
        ids, depth = cast_by_mujoco(model, data, caster, data.cam_xpos[camera], turn, camera)
        same = ids == pictures["geom"][camera]
        assert same.mean() >= 0.99
        seen = same & (ids >= 0)
        assert len(np.unique(ids)) > 6 and np.abs(depth - pictures["depth"][camera])[seen].max() < 1e-5
        assert (pictures["depth"][camera][pictures["geom"][camera] < 0] == 0).all()
        np.testing.assert_array_equal(
            pictures["body"][camera],
            np.where(pictures["geom"][camera] < 0, -1, model.geom_bodyid[pictures["geom"][camera]]),
        )


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "mesh"])
def test_an_eye_inside_sees_the_far_side(shape):
    model, data = world(3, (shape,))
    inside = tuple(data.geom_xpos[2] + 0.02)
    caster = draws(model, 32, 32, [Camera(inside, (1.0, 0.5, 0.3), fovy=100)])
    pictures = caster.render(data)
    ids, depth = cast_by_mujoco(model, data, caster, np.array(inside), caster.cameras[0].rotation)
    assert (ids == pictures["geom"][0]).mean() > 0.99 and (ids == 2).mean() > 0.5
    assert np.abs(depth - pictures["depth"][0])[ids == pictures["geom"][0]].max() < 1e-5


def test_the_camera_is_mujocos(scene):
    """A camera given by its position and target is the model's camera in the same place, and back-projection works."""
    model, data = scene
    turn = data.cam_xmat[0].reshape(3, 3)
    camera = Camera(tuple(data.cam_xpos[0]), tuple(data.cam_xpos[0] - turn[:, 2]), fovy=float(model.cam_fovy[0]))
    np.testing.assert_allclose(camera.rotation, turn, atol=1e-12)
    caster = draws(model, 64, 48, ["front"])
    pictures = caster.render(data)
    points = data.cam_xpos[0] + (caster.rays() * pictures["depth"][0][..., None]) @ turn.T
    assert np.abs(points[pictures["geom"][0] == 0][:, 2]).max() < 1e-5  # the floor lies at height 0


def test_points_are_seen_where_mujoco_projects_them():
    sensor = '<sensor><camprojection site="point" camera="front"/></sensor></mujoco>'
    xml = WORLD.format(wedge=WEDGE, bodies='<site name="point" pos=".1 .2 .3"/>').replace("</mujoco>", sensor)
    model = mujoco.MjModel.from_xml_string(xml.replace('name="front"', 'name="front" resolution="64 48"'))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    x, y, z = (data.site_xpos[0] - data.cam_xpos[0]) @ data.cam_xmat[0].reshape(3, 3)
    caster = RayCaster(model, 64, 48)
    rays = caster.rays()
    column, row = ((point - rays[0, 0, i]) / step for i, (point, step) in enumerate(zip(
        (-x / z, -y / z), (rays[0, 1, 0] - rays[0, 0, 0], rays[1, 0, 1] - rays[0, 0, 1]), strict=True)))  # fmt: skip
    np.testing.assert_allclose([column + 0.5, row + 0.5], data.sensordata, atol=1e-6)
    # The optical axis of the lens, in pixels from the middle: what mujoco.Renderer draws is shifted by this much.
    lens = caster.rays(1)
    step_x, step_y = lens[0, 1, 0] - lens[0, 0, 0], lens[1, 0, 1] - lens[0, 0, 1]
    np.testing.assert_allclose([-lens[0, 0, 0] / step_x - 31.5, -lens[0, 0, 1] / step_y - 23.5], [-4.8, 3.2], atol=1e-5)


def test_the_same_bits_for_any_split_and_into_given_arrays(scene):
    model, data = scene
    scenes = []
    for shift in range(5):
        other = mujoco.MjData(model)
        other.qpos[:] = data.qpos + 0.02 * shift
        mujoco.mj_forward(model, other)
        scenes.append(other)
    look = Look.of(model).randomised(5, seed=1)
    caster = draws(model, 64, 48)
    whole = caster.render(scenes, look=look)
    assert len({picture.tobytes() for picture in whole["rgb"][:, 0]}) == 5
    out = caster.buffers(5)
    for part in (slice(0, 1), slice(1, 4), slice(4, 5)):
        caster.render(Poses.of(scenes[part]), out={name: array[part] for name, array in out.items()}, look=look[part])
    for name, array in whole.items():
        np.testing.assert_array_equal(array, out[name])
    single = caster.render(scenes[3], look=look[3:4])
    np.testing.assert_array_equal(single["rgb"], whole["rgb"][3])


def test_randomised_looks_depend_on_their_own_number_alone(scene):
    look = Look.of(scene[0])
    many, few = look.randomised(8, seed=4), look.randomised(3, seed=4)
    np.testing.assert_array_equal(many[:3].colors, few.colors)
    assert not np.array_equal(few.colors, look.randomised(3, seed=5).colors)
    still = look.randomised(2, seed=4, strength=0.0)
    np.testing.assert_allclose(still.colors[1], look.colors[0])
    np.testing.assert_array_equal(still.pattern[1], look.pattern[0])


def test_light_and_patterns():
    """A face that the light strikes squarely is ambient + diffuse bright, one it does not reach ambient or less."""
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom type="box" size=".5 .5 .5" rgba=".5 .5 .5 1"/></worldbody></mujoco>'
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    above, below = Camera((0, 0, 3), up=(0, 1, 0)), Camera((0, 0, -3), up=(0, 1, 0))
    caster = draws(model, 32, 32, [above, below])
    look = replace(caster.look, light=np.array([[0, 0, 2.0]]), ambient=np.array([0.5]), diffuse=np.array([0.7]))
    middle = caster.render(data, look=look)["rgb"][:, 16, 16, 0]
    np.testing.assert_allclose(middle, [127.5 * 1.2, 127.5 * 0.3], atol=1.01)  # 0.5 (0.8 + 0.2) + 0.7; 0.5 (0.8 - 0.2)
    look = replace(look, colors=np.array([[[[1.0, 0, 0], [0, 0, 1.0]]]]))
    for pattern in range(1, 4):
        shown = caster.render(data, look=replace(look, pattern=np.array([[pattern]])))["rgb"][0]
        inside = shown[caster.render(data)["geom"][0] == 0]
        assert inside[:, 0].max() > 150 and inside[:, 2].max() > 150
        if pattern == 1:  # squares of 0.1 m: half are red
            assert abs((inside[:, 0] > 100).mean() - 0.5) < 0.1


def test_shadows_fall_where_the_light_is_hidden(scene):
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><light directional="true" dir="0 0 -1"/><geom type="plane" size="0 0 .1"/>
        <geom type="sphere" size=".2" pos="0 0 1"/></worldbody></mujoco>"""
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = Camera((0, -2.5, 1.5), fovy=60)
    caster = draws(model, 64, 64, [camera])
    pictures = caster.render(data, look=replace(caster.look, light=np.array([[0, 0, 1.0]])))
    points = np.array(camera.position) + (caster.rays() * pictures["depth"][0][..., None]) @ camera.rotation.T
    floor = pictures["geom"][0] == 0
    under = floor & (np.hypot(points[..., 0], points[..., 1]) < 0.2)
    (dark,), (bright,) = (np.unique(pictures["rgb"][0][where][:, 0]) for where in (under, floor & ~under))
    assert under.sum() > 20 and dark == int(127.5 * 0.55) and bright == int(127.5 * 1.1)


def test_hidden_groups_transparent_geoms_and_planes_from_behind():
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><geom type="plane" size="1 1 .1"/>
        <geom name="a" size=".1" pos="0 0 .5"/><geom size=".2" pos="0 0 .5" group="3"/>
        <geom size=".3" pos="0 0 .5" rgba="1 1 1 0"/></worldbody></mujoco>"""
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    cameras = [Camera((0, 0, 2), up=(0, 1, 0)), Camera((0, 0, -2), up=(0, 1, 0))]
    seen = draws(model, 32, 32, cameras).render(data)["geom"]
    assert set(np.unique(seen[0])) == {0, 1} and set(np.unique(seen[1])) == {-1, 1}
    hidden = draws(model, 32, 32, cameras, hide=["a"], groups=(0, 3)).render(data)["geom"]
    assert set(np.unique(hidden[0])) == {0, 2}


def test_what_is_refused(scene):
    model, data = scene
    with pytest.raises(ValueError, match="no camera 'side'; it has 'front', 'lens'"):
        RayCaster(model, cameras=["side"])
    with pytest.raises(ValueError, match=r"unknown channel \['colour'\]; there are rgb, depth, geom, body"):
        RayCaster(model, channels=["colour"])
    with pytest.raises(ValueError, match="no geom 'ghost'"):
        RayCaster(model, hide=["ghost"])
    with pytest.raises(ValueError, match="needs another `up`"):
        Camera((0, 0, 1)).rotation  # noqa: B018
    hills = mujoco.MjModel.from_xml_string(
        """<mujoco><asset><hfield name="h" nrow="2" ncol="2" size="1 1 1 1"/></asset>
        <worldbody><geom name="hill" type="hfield" hfield="h"/></worldbody></mujoco>"""
    )
    with pytest.raises(ValueError, match="geom hill is a hfield, which is not drawn"):
        RayCaster(hills)
    caster = draws(model)
    poses = Poses.of([data])
    with pytest.raises(ValueError, match="a pose is not finite"):
        caster.render(poses._replace(geom_xpos=poses.geom_xpos * np.nan))
    with pytest.raises(ValueError, match="geom_xpos and geom_xmat must be"):
        caster.render(poses._replace(geom_xpos=poses.geom_xpos[:, 1:]))
    with pytest.raises(ValueError, match=r"out\['rgb'\] must be contiguous uint8 of shape"):
        caster.render(data, out=caster.buffers(2))
    with pytest.raises(ValueError, match="does not fit 1 environments"):
        caster.render(data, look=Look.of(model).randomised(3, seed=0))
