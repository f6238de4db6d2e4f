# mypy: allow-untyped-defs, allow-incomplete-defs
"""The loops of the ray caster: one picture at a time, one geom at a time, only inside the geom's screen rectangle.

A ray is d = (x, y, -1) in the frame of the camera, so that its parameter t is the planar depth. In the frame of a geom
it is o + t d with d affine in x along a row of pixels: the innermost loops have no branches and vectorise.

One file, since Numba's cache asks only whether the file of `draw` has changed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

__all__ = ["BOX", "CAPSULE", "CYLINDER", "ELLIPSOID", "MESH", "PLANE", "SPHERE", "Geoms", "Light", "Paint", "draw"]

PLANE, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX, MESH = 0, 2, 3, 4, 5, 6, 7  # as in mjtGeom
CHECKER, NOISE, STRIPES = 1, 2, 3  # patterns; 0 is plain
TINY = 1e-30  # keeps a ray along the axis of a cylinder from 0/0


class Geoms(NamedTuple):
    """What never changes of G geoms; triangles of all meshes lie one after the other."""

    kind: np.ndarray  # (G,) int64
    size: np.ndarray  # (G, 3) as in MuJoCo; infinite planes have inf
    centre: np.ndarray  # (G, 3) of the bounding box, in the frame of the geom
    half: np.ndarray  # (G, 3) half extents of the bounding box
    visible: np.ndarray  # (G,) bool
    vertices: np.ndarray  # (V, 3)
    vertex_range: np.ndarray  # (G, 2) first and last + 1
    faces: np.ndarray  # (F, 3) vertex numbers, counted from the mesh's first
    face_range: np.ndarray  # (G, 2)
    body: np.ndarray  # (G,) int32


class Paint(NamedTuple):
    """Colours of n environments, n = 1 where all look alike."""

    colors: np.ndarray  # (n, G, 2, 3) float32, 0..255: of a geom and of its pattern
    pattern: np.ndarray  # (n, G) int64
    cell: np.ndarray  # (n, G) metres
    seed: np.ndarray  # (n, G) int64 of the noise


class Light(NamedTuple):
    """Light and sky of n environments."""

    direction: np.ndarray  # (n, 3) unit, towards the light
    ambient: np.ndarray  # (n,)
    diffuse: np.ndarray  # (n,)
    sky: np.ndarray  # (n, 2, 3) float32, 0..255: horizon, zenith


# Only `draw` is called from Python and kept on disk; the others need no wrapper, which halves the time to compile.
_options: dict[str, Any] = {
    "error_model": "numpy",
    "fastmath": {"contract", "nsz"},
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
_jit = njit(**_options)
_inline = njit(**_options, forceinline=True)

# Every hit function takes the ray o + t d in the frame of the geom, the sizes, and side = -1 for the point where the
# ray enters, +1 for where it leaves (the eye is inside). It returns t, inf where it misses, and the normal.


@_inline
def _hit_plane(ox, oy, oz, dx, dy, dz, sx, sy, sz, side):
    t = -oz / dz
    hit = (oz > 0) & (dz < 0) & (abs(ox + t * dx) <= sx) & (abs(oy + t * dy) <= sy)
    return (t if hit else np.inf), 0.0, 0.0, 1.0


@_inline
def _hit_sphere(ox, oy, oz, dx, dy, dz, sx, sy, sz, side):
    a = dx * dx + dy * dy + dz * dz
    b = ox * dx + oy * dy + oz * dz
    c = ox * ox + oy * oy + oz * oz - sx * sx
    disc = b * b - a * c
    t = (side * math.sqrt(max(disc, 0.0)) - b) / a
    out = -side / sx
    hit = (disc >= 0) & (t > 0)
    return (t if hit else np.inf), out * (ox + t * dx), out * (oy + t * dy), out * (oz + t * dz)


@_inline
def _hit_ellipsoid(ox, oy, oz, dx, dy, dz, sx, sy, sz, side):
    ux, uy, uz = 1 / sx, 1 / sy, 1 / sz
    t, nx, ny, nz = _hit_sphere(ox * ux, oy * uy, oz * uz, dx * ux, dy * uy, dz * uz, 1.0, 1.0, 1.0, side)
    nx, ny, nz = nx * ux, ny * uy, nz * uz
    length = 1 / math.sqrt(nx * nx + ny * ny + nz * nz)
    return t, nx * length, ny * length, nz * length


@_inline
def _hit_capsule(ox, oy, oz, dx, dy, dz, sx, sy, sz, side):
    """Where a ray enters the endless cylinder, the sphere around the axis at that height touches it from inside."""
    a = max(dx * dx + dy * dy, TINY)
    b = ox * dx + oy * dy
    disc = b * b - a * (ox * ox + oy * oy - sx * sx)
    z = oz + dz * (side * math.sqrt(max(disc, 0.0)) - b) / a
    z = min(max(z, -sy), sy)
    t, nx, ny, nz = _hit_sphere(ox, oy, oz - z, dx, dy, dz, sx, sx, sx, side)
    return (t if disc >= 0 else np.inf), nx, ny, nz


@_inline
def _hit_cylinder(ox, oy, oz, dx, dy, dz, sx, sy, sz, side):
    """The common part of what the ray has in the endless cylinder and in the slab between the caps."""
    a = max(dx * dx + dy * dy, TINY)
    b = ox * dx + oy * dy
    disc = b * b - a * (ox * ox + oy * oy - sx * sx)
    root = math.sqrt(max(disc, 0.0))
    low, high = (-b - root) / a, (root - b) / a
    inverse = 1 / dz
    cap1, cap2 = (-sy - oz) * inverse, (sy - oz) * inverse
    near, far = min(cap1, cap2), max(cap1, cap2)
    enter, leave = max(low, near), min(high, far)
    t = enter if side < 0 else leave
    round_ = (low > near) if side < 0 else (high < far)
    hit = (disc >= 0) & (enter <= leave) & (t > 0)
    out = -side / sx
    cap = -1.0 if dz > 0 else 1.0
    return (
        (t if hit else np.inf),
        (out * (ox + t * dx) if round_ else 0.0),
        (out * (oy + t * dy) if round_ else 0.0),
        (0.0 if round_ else cap),
    )


@_inline
def _hit_box(ox, oy, oz, dx, dy, dz, sx, sy, sz, side):
    ix, iy, iz = 1 / dx, 1 / dy, 1 / dz
    mx, my, mz = -ox * ix, -oy * iy, -oz * iz  # the middle of each slab
    hx, hy, hz = abs(sx * ix), abs(sy * iy), abs(sz * iz)
    enter = max(max(mx - hx, my - hy), mz - hz)
    leave = min(min(mx + hx, my + hy), mz + hz)
    t = enter if side < 0 else leave
    hit = (enter <= leave) & (t > 0)
    on_x = t == mx + side * hx
    on_y = (t == my + side * hy) & (not on_x)
    nx, ny, nz = (-1.0 if dx > 0 else 1.0), (-1.0 if dy > 0 else 1.0), (-1.0 if dz > 0 else 1.0)
    return (
        (t if hit else np.inf),
        (nx if on_x else 0.0),
        (ny if on_y else 0.0),
        (0.0 if on_x | on_y else nz),
    )


@_inline
def _inside(kind, ox, oy, oz, sx, sy, sz):
    if kind == SPHERE:
        return ox * ox + oy * oy + oz * oz < sx * sx
    if kind == CAPSULE:
        z = oz - min(max(oz, -sy), sy)
        return ox * ox + oy * oy + z * z < sx * sx
    if kind == ELLIPSOID:
        return (ox / sx) ** 2 + (oy / sy) ** 2 + (oz / sz) ** 2 < 1
    if kind == CYLINDER:
        return ox * ox + oy * oy < sx * sx and abs(oz) < sy
    return abs(ox) < sx and abs(oy) < sy and abs(oz) < sz


def _painter(hit):
    @_jit
    def paint(g, window, view, o, M, size, side, normal, t, ids, shade):
        """Draw one geom: keep the nearest hit of each pixel, its id and how bright it is.

        window: rows and columns; view: x of column 0, step, y of row 0, step; normal: what a brightness is made of, as
        ambient, hemisphere (3), diffuse, light (3) in the frame of the geom.
        """
        ox, oy, oz = o[0], o[1], o[2]
        sx, sy, sz = size[0], size[1], size[2]
        ax, ay, az = M[0, 0], M[1, 0], M[2, 0]
        base, ux, uy, uz, lx, ly, lz = normal
        first, last = window[2], window[3]
        for i in range(window[0], window[1]):
            y = view[2] + i * view[3]
            x0 = view[0] + first * view[1]
            bx, by, bz = M[0, 1] * y - M[0, 2], M[1, 1] * y - M[1, 2], M[2, 1] * y - M[2, 2]
            near, who, light = t[i, first:last], ids[i, first:last], shade[i, first:last]
            for k in range(last - first):
                x = x0 + k * view[1]
                s, nx, ny, nz = hit(ox, oy, oz, bx + ax * x, by + ay * x, bz + az * x, sx, sy, sz, side)
                before, before_who, before_light = near[k], who[k], light[k]
                closer = s < before
                lit = max(nx * lx + ny * ly + nz * lz, 0.0) + base + nx * ux + ny * uy + nz * uz
                near[k] = s if closer else before
                who[k] = g if closer else before_who
                light[k] = np.float32(lit) if closer else before_light

    return paint


_paint_plane = _painter(_hit_plane)
_paint_sphere = _painter(_hit_sphere)
_paint_capsule = _painter(_hit_capsule)
_paint_ellipsoid = _painter(_hit_ellipsoid)
_paint_cylinder = _painter(_hit_cylinder)
_paint_box = _painter(_hit_box)


@_jit
def _darken(kind, g, window, view, o, M, size, light, level, t, ids, shade):
    """Cast the shadow of one geom on all others: no brighter than the ambient level where it hides the light.

    One version for all kinds, since the time to compile it counts for more than the time to run it.
    """
    lx, ly, lz = light
    sx, sy, sz = size[0], size[1], size[2]
    level = np.float32(level)
    for i in range(window[0], window[1]):
        y = view[2] + i * view[3]
        for j in range(window[2], window[3]):
            if ids[i, j] == g or ids[i, j] < 0 or shade[i, j] <= level:
                continue
            x, s = view[0] + j * view[1], t[i, j]
            px = o[0] + s * (M[0, 0] * x + M[0, 1] * y - M[0, 2])
            py = o[1] + s * (M[1, 0] * x + M[1, 1] * y - M[1, 2])
            pz = o[2] + s * (M[2, 0] * x + M[2, 1] * y - M[2, 2])
            if kind == SPHERE:
                away, _, _, _ = _hit_sphere(px, py, pz, lx, ly, lz, sx, sy, sz, -1.0)
            elif kind == CAPSULE:
                away, _, _, _ = _hit_capsule(px, py, pz, lx, ly, lz, sx, sy, sz, -1.0)
            elif kind == CYLINDER:
                away, _, _, _ = _hit_cylinder(px, py, pz, lx, ly, lz, sx, sy, sz, -1.0)
            elif kind == BOX:
                away, _, _, _ = _hit_box(px, py, pz, lx, ly, lz, sx, sy, sz, -1.0)
            else:
                away, _, _, _ = _hit_ellipsoid(px, py, pz, lx, ly, lz, sx, sy, sz, -1.0)
            if away < np.inf:
                shade[i, j] = level


@_jit
def _paint_mesh(g, window, view, vertices, faces, normal_of, t, ids, shade):
    """Draw the triangles of a mesh, vertices (V, 3) in the frame of the camera, by homogeneous edge functions."""
    base, ux, uy, uz, lx, ly, lz = normal_of
    for f in range(len(faces)):
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        ex0, ey0, ez0 = b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0]
        ex1, ey1, ez1 = c[1] * a[2] - c[2] * a[1], c[2] * a[0] - c[0] * a[2], c[0] * a[1] - c[1] * a[0]
        ex2, ey2, ez2 = a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
        nx, ny, nz = ex0 + ex1 + ex2, ey0 + ey1 + ey2, ez0 + ez1 + ez2
        volume = a[0] * ex0 + a[1] * ey0 + a[2] * ez0
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        if length == 0 or volume == 0:
            continue
        i0, i1, j0, j1 = window
        if max(a[2], b[2], c[2]) < -1e-6:  # all in front
            ua, ub, uc = -a[0] / a[2], -b[0] / b[2], -c[0] / c[2]
            va, vb, vc = -a[1] / a[2], -b[1] / b[2], -c[1] / c[2]
            j0 = max(j0, math.ceil((min(ua, ub, uc) - view[0]) / view[1] - 1e-9))
            j1 = min(j1, math.floor((max(ua, ub, uc) - view[0]) / view[1] + 1e-9) + 1)
            i0 = max(i0, math.ceil((max(va, vb, vc) - view[2]) / view[3] - 1e-9))
            i1 = min(i1, math.floor((min(va, vb, vc) - view[2]) / view[3] + 1e-9) + 1)
        sign = 1.0 if volume > 0 else -1.0
        out = -sign / length  # towards the eye
        lit = np.float32(base + out * (nx * ux + ny * uy + nz * uz) + max(out * (nx * lx + ny * ly + nz * lz), 0.0))
        for i in range(i0, i1):
            y = view[2] + i * view[3]
            for j in range(j0, j1):
                x = view[0] + j * view[1]
                e0, e1, e2 = ex0 * x + ey0 * y - ez0, ex1 * x + ey1 * y - ez1, ex2 * x + ey2 * y - ez2
                if min(sign * e0, sign * e1, sign * e2) >= 0 and e0 + e1 + e2 != 0:
                    s = volume / (e0 + e1 + e2)
                    if 0 < s < t[i, j]:
                        t[i, j], ids[i, j], shade[i, j] = s, g, lit


@_inline
def _ball_range(across, depth, radius, start, step, count):
    """First and last + 1 pixel that a ball in front of the eye covers along one axis (rows or columns)."""
    k = depth * depth - radius * radius
    root = radius * math.sqrt(across * across + k)
    low, high = (across * depth - root) / k, (across * depth + root) / k
    p, q = (low - start) / step, (high - start) / step
    return _clip(math.ceil(min(p, q)), count), _clip(math.floor(max(p, q)) + 1, count)


@_inline
def _clip(value, count):
    return int(min(max(value, 0), count))


@_inline
def _ball_window(x, y, depth, radius, view, height, width):
    if depth <= 1.001 * radius:
        return 0, height, 0, width
    i0, i1 = _ball_range(y, depth, radius, view[2], view[3], height)
    j0, j1 = _ball_range(x, depth, radius, view[0], view[1], width)
    return i0, i1, j0, j1


@_jit
def _box_window(centre, axes, half, view, height, width):
    """Rows and columns that a box covers: its centre and axes (columns) in the frame of the camera."""
    left, right, bottom, top = np.inf, -np.inf, np.inf, -np.inf
    for corner in range(8):
        hx = half[0] if corner & 1 else -half[0]
        hy = half[1] if corner & 2 else -half[1]
        hz = half[2] if corner & 4 else -half[2]
        depth = -(centre[2] + axes[2, 0] * hx + axes[2, 1] * hy + axes[2, 2] * hz)
        if not depth > 1e-6:
            return 0, height, 0, width
        u = (centre[0] + axes[0, 0] * hx + axes[0, 1] * hy + axes[0, 2] * hz) / depth
        v = (centre[1] + axes[1, 0] * hx + axes[1, 1] * hy + axes[1, 2] * hz) / depth
        left, right, bottom, top = min(left, u), max(right, u), min(bottom, v), max(top, v)
    return (
        _clip(math.ceil((top - view[2]) / view[3]), height),
        _clip(math.floor((bottom - view[2]) / view[3]) + 1, height),
        _clip(math.ceil((left - view[0]) / view[1]), width),
        _clip(math.floor((right - view[0]) / view[1]) + 1, width),
    )


@_jit
def _picture(geoms, position, rotation, eye, turn, view, sun, shadows, frames, corners, t, ids, shade):
    """Find what every pixel sees. frames (G, 4, 3) is left with M and o of each geom for the patterns."""
    height, width = t.shape
    t[:] = np.inf
    ids[:] = -1
    shade[:] = 1
    lx, ly, lz, ambient, diffuse = sun
    floor = np.inf
    for g in range(len(geoms.kind)):
        if not geoms.visible[g]:
            continue
        kind, size = geoms.kind[g], geoms.size[g]
        R, half, o, M = rotation[g], geoms.half[g], frames[g, 3], frames[g, :3]
        offset = (eye[0] - position[g, 0], eye[1] - position[g, 1], eye[2] - position[g, 2])
        for a in range(3):
            o[a] = R[0, a] * offset[0] + R[1, a] * offset[1] + R[2, a] * offset[2]
            for b in range(3):
                M[a, b] = R[0, a] * turn[0, b] + R[1, a] * turn[1, b] + R[2, a] * turn[2, b]
        if kind == PLANE:
            floor = min(floor, position[g, 2])
        mid = geoms.centre[g]
        qx, qy, qz = mid[0] - o[0], mid[1] - o[1], mid[2] - o[2]
        centre = (
            M[0, 0] * qx + M[1, 0] * qy + M[2, 0] * qz,
            M[0, 1] * qx + M[1, 1] * qy + M[2, 1] * qz,
            M[0, 2] * qx + M[1, 2] * qy + M[2, 2] * qz,
        )
        window = (0, height, 0, width)
        if half[0] < np.inf:
            if kind == SPHERE:
                if centre[2] >= half[0]:
                    continue
                window = _ball_window(centre[0], centre[1], -centre[2], half[0], view, height, width)
            else:
                reach = abs(M[0, 2]) * half[0] + abs(M[1, 2]) * half[1] + abs(M[2, 2]) * half[2]
                if centre[2] >= reach:
                    continue
                window = _box_window(centre, M.T, half, view, height, width)
        if window[0] >= window[1] or window[2] >= window[3]:
            continue
        # The light and the vertical in the frame of the geom, scaled by what they count for.
        light = (
            diffuse * (R[0, 0] * lx + R[1, 0] * ly + R[2, 0] * lz),
            diffuse * (R[0, 1] * lx + R[1, 1] * ly + R[2, 1] * lz),
            diffuse * (R[0, 2] * lx + R[1, 2] * ly + R[2, 2] * lz),
        )
        hemisphere = 0.2 * ambient
        normal = (
            ambient - hemisphere,
            hemisphere * R[2, 0], hemisphere * R[2, 1], hemisphere * R[2, 2],
            light[0], light[1], light[2],
        )  # fmt: skip
        if kind == MESH:
            first, last = geoms.vertex_range[g]
            for v in range(first, last):
                p = geoms.vertices[v]
                for b in range(3):
                    corners[v - first, b] = M[0, b] * (p[0] - o[0]) + M[1, b] * (p[1] - o[1]) + M[2, b] * (p[2] - o[2])
            eye_normal = (
                normal[0],
                hemisphere * turn[2, 0], hemisphere * turn[2, 1], hemisphere * turn[2, 2],
                diffuse * (turn[0, 0] * lx + turn[1, 0] * ly + turn[2, 0] * lz),
                diffuse * (turn[0, 1] * lx + turn[1, 1] * ly + turn[2, 1] * lz),
                diffuse * (turn[0, 2] * lx + turn[1, 2] * ly + turn[2, 2] * lz),
            )  # fmt: skip
            faces = geoms.faces[geoms.face_range[g, 0] : geoms.face_range[g, 1]]
            _paint_mesh(g, window, view, corners, faces, eye_normal, t, ids, shade)
            continue
        side = 1.0 if kind != PLANE and _inside(kind, o[0], o[1], o[2], size[0], size[1], size[2]) else -1.0
        if kind == PLANE:
            _paint_plane(g, window, view, o, M, size, side, normal, t, ids, shade)
        elif kind == SPHERE:
            _paint_sphere(g, window, view, o, M, size, side, normal, t, ids, shade)
        elif kind == CAPSULE:
            _paint_capsule(g, window, view, o, M, size, side, normal, t, ids, shade)
        elif kind == ELLIPSOID:
            _paint_ellipsoid(g, window, view, o, M, size, side, normal, t, ids, shade)
        elif kind == CYLINDER:
            _paint_cylinder(g, window, view, o, M, size, side, normal, t, ids, shade)
        else:
            _paint_box(g, window, view, o, M, size, side, normal, t, ids, shade)
    if shadows is not None:
        _shadows(geoms, position, rotation, eye, turn, view, sun, floor, frames, t, ids, shade)


@_jit
def _shadows(geoms, position, rotation, eye, turn, view, sun, floor, frames, t, ids, shade):
    height, width = t.shape
    lx, ly, lz, ambient, _ = sun
    for g in range(len(geoms.kind)):
        kind, size, half, R = geoms.kind[g], geoms.size[g], geoms.half[g], rotation[g]
        if not geoms.visible[g] or kind == PLANE:
            continue
        radius = math.sqrt(half[0] * half[0] + half[1] * half[1] + half[2] * half[2])
        mid = geoms.centre[g]
        world = (
            position[g, 0] + R[0, 0] * mid[0] + R[0, 1] * mid[1] + R[0, 2] * mid[2],
            position[g, 1] + R[1, 0] * mid[0] + R[1, 1] * mid[1] + R[1, 2] * mid[2],
            position[g, 2] + R[2, 0] * mid[0] + R[2, 1] * mid[1] + R[2, 2] * mid[2],
        )
        # A ball around the geom and where it ends up when it is swept along the light down to the floor.
        i0, i1, j0, j1 = height, 0, width, 0
        length = (world[2] + radius - floor) / lz if lz > 0.05 and floor > -np.inf and floor < np.inf else np.inf
        if length < np.inf:
            for end in range(2):
                far = max(length, 0.0) * end
                px, py, pz = world[0] - far * lx - eye[0], world[1] - far * ly - eye[1], world[2] - far * lz - eye[2]
                a, b, c, d = _ball_window(
                    turn[0, 0] * px + turn[1, 0] * py + turn[2, 0] * pz,
                    turn[0, 1] * px + turn[1, 1] * py + turn[2, 1] * pz,
                    -(turn[0, 2] * px + turn[1, 2] * py + turn[2, 2] * pz),
                    radius, view, height, width,
                )  # fmt: skip
                i0, i1, j0, j1 = min(i0, a), max(i1, b), min(j0, c), max(j1, d)
        else:
            i0, i1, j0, j1 = 0, height, 0, width
        if i0 >= i1 or j0 >= j1:
            continue
        window = (i0, i1, j0, j1)
        light = (
            R[0, 0] * lx + R[1, 0] * ly + R[2, 0] * lz,
            R[0, 1] * lx + R[1, 1] * ly + R[2, 1] * lz,
            R[0, 2] * lx + R[1, 2] * ly + R[2, 2] * lz,
        )
        o, M = frames[g, 3], frames[g, :3]
        if kind == MESH:  # casts the shadow of the ellipsoid in its bounding box
            _darken(ELLIPSOID, g, window, view, o - mid, M, half, light, ambient, t, ids, shade)
        else:
            _darken(kind, g, window, view, o, M, size, light, ambient, t, ids, shade)


@_inline
def _floor(x):
    """As math.floor, in registers of half the width."""
    whole = np.int32(x)
    return whole - np.int32(x < whole)


@_inline
def _byte(value):
    return np.uint8(np.int32(value if value < np.float32(255) else np.float32(255)))


@_inline
def _hash(a, b, c, seed):
    h = np.uint64(a * 73856093 ^ b * 19349663 ^ c * 83492791 ^ seed * 2654435761)
    h = (h ^ (h >> np.uint64(15))) * np.uint64(0x2C1B3C6D)
    h = (h ^ (h >> np.uint64(12))) * np.uint64(0x297A2D39)
    return float((h ^ (h >> np.uint64(15))) & np.uint64(0xFFFF)) * (1 / 65535)


@_jit
def _noise(x, y, z, seed):
    """Value noise on a lattice of unit cells, 0..1."""
    fx, fy, fz = math.floor(x), math.floor(y), math.floor(z)
    a, b, c = int(fx), int(fy), int(fz)
    x, y, z = x - fx, y - fy, z - fz
    x, y, z = x * x * (3 - 2 * x), y * y * (3 - 2 * y), z * z * (3 - 2 * z)
    value = 0.0
    for i in range(2):
        for j in range(2):
            weight = (x if i else 1 - x) * (y if j else 1 - y)
            value += weight * ((1 - z) * _hash(a + i, b + j, c, seed) + z * _hash(a + i, b + j, c + 1, seed))
    return value


@_jit
def _compose(colors, pattern, cell, seed, sky, turn, view, frames, t, ids, shade, rgb):
    """Colour the pixels, run by run of neighbours that see the same geom."""
    height, width = t.shape
    for i in range(height):
        y = view[2] + i * view[3]
        start = 0
        while start < width:
            g = ids[i, start]
            end = start + 1
            while end < width and ids[i, end] == g:
                end += 1
            near, light = t[i, start:end], shade[i, start:end]
            pixels = rgb[i, 3 * start : 3 * end]
            x0, dx = view[0] + start * view[1], view[1]
            if g < 0:
                low, ahead = sky[0], turn[2, 1] * y - turn[2, 2]
                r0, g0, b0 = low[0], low[1], low[2]
                r1, g1, b1 = sky[1, 0] - r0, sky[1, 1] - g0, sky[1, 2] - b0
                for k in range(end - start):
                    up = np.float32(min(max(ahead + turn[2, 0] * (x0 + k * dx), 0.0), 1.0))
                    pixels[3 * k] = _byte(r0 + up * r1)
                    pixels[3 * k + 1] = _byte(g0 + up * g1)
                    pixels[3 * k + 2] = _byte(b0 + up * b1)
                start = end
                continue
            r0, g0, b0 = colors[g, 0, 0], colors[g, 0, 1], colors[g, 0, 2]
            if pattern[g] == 0:
                for k in range(end - start):
                    s = light[k]
                    pixels[3 * k] = _byte(r0 * s)
                    pixels[3 * k + 1] = _byte(g0 * s)
                    pixels[3 * k + 2] = _byte(b0 * s)
                start = end
                continue
            r1, g1, b1 = colors[g, 1, 0] - r0, colors[g, 1, 1] - g0, colors[g, 1, 2] - b0
            M, o, inverse = frames[g, :3], frames[g, 3], 1 / cell[g]
            ox, oy, oz = o[0] * inverse + 1e-4, o[1] * inverse + 1e-4, o[2] * inverse + 1e-4  # no seam along a face
            ax, ay, az = M[0, 0] * inverse, M[1, 0] * inverse, M[2, 0] * inverse
            bx, by, bz = M[0, 1] * y - M[0, 2], M[1, 1] * y - M[1, 2], M[2, 1] * y - M[2, 2]
            bx, by, bz = bx * inverse + ax * x0, by * inverse + ay * x0, bz * inverse + az * x0
            ax, ay, az = ax * dx, ay * dx, az * dx
            if pattern[g] == CHECKER:
                for k in range(end - start):
                    s = near[k]
                    px, py, pz = ox + s * (bx + k * ax), oy + s * (by + k * ay), oz + s * (bz + k * az)
                    mix, bright = np.float32((_floor(px) + _floor(py) + _floor(pz)) & 1), light[k]
                    pixels[3 * k] = _byte((r0 + mix * r1) * bright)
                    pixels[3 * k + 1] = _byte((g0 + mix * g1) * bright)
                    pixels[3 * k + 2] = _byte((b0 + mix * b1) * bright)
            else:
                for k in range(end - start):
                    s, bright = near[k], light[k]
                    px, py, pz = ox + s * (bx + k * ax), oy + s * (by + k * ay), oz + s * (bz + k * az)
                    if pattern[g] == NOISE:
                        fine = _noise(2.1 * px, 2.1 * py, 2.1 * pz, seed[g] + 1)
                        mix = np.float32(0.6 * _noise(px, py, pz, seed[g]) + 0.4 * fine)
                    else:
                        mix = np.float32(_floor(px + py + pz) & 1)
                    pixels[3 * k] = _byte((r0 + mix * r1) * bright)
                    pixels[3 * k + 1] = _byte((g0 + mix * g1) * bright)
                    pixels[3 * k + 2] = _byte((b0 + mix * b1) * bright)
            start = end


@njit(cache=True, nogil=True, error_model="numpy")
def draw(geoms, paint, light, position, rotation, eyes, turns, views, shadows, longest, wants, rgb, depth, geom, body):
    """Draw a batch.

    Args:
        geoms, paint, light: see there.
        position, rotation: (N, G, 3) and (N, G, 3, 3) of the geoms.
        eyes, turns: (N, C, 3) and (N, C, 3, 3) of the cameras; they look along -z.
        views: (C, 4) x of the first column, step, y of the first row, step, at distance 1.
        shadows: True, or None where geoms cast none; None is left out of the compiled code.
        longest: vertices of the largest mesh.
        wants: which of the following are to be filled.
        rgb, depth, geom, body: (N, C, H, W, ...) outputs; one that is not wanted has N = 0.
    """
    if wants[0]:
        height, width = rgb.shape[2], rgb.shape[3]
    elif wants[1]:
        height, width = depth.shape[2], depth.shape[3]
    elif wants[2]:
        height, width = geom.shape[2], geom.shape[3]
    else:
        height, width = body.shape[2], body.shape[3]
    corners = np.empty((longest, 3))
    t = np.empty((height, width))
    ids = np.empty((height, width), np.int32)
    shade = np.empty((height, width), np.float32)
    frames = np.zeros((len(geoms.kind), 4, 3))
    for e in range(position.shape[0]):
        p = e if len(paint.cell) > 1 else 0
        q = e if len(light.ambient) > 1 else 0
        towards = light.direction[q]
        sun = (towards[0], towards[1], towards[2], light.ambient[q], light.diffuse[q])
        for c in range(eyes.shape[1]):
            view = (views[c, 0], views[c, 1], views[c, 2], views[c, 3])
            turn = turns[e, c]
            _picture(
                geoms, position[e], rotation[e], eyes[e, c], turn, view, sun, shadows, frames, corners, t, ids, shade
            )
            if wants[0]:
                _compose(
                    paint.colors[p], paint.pattern[p], paint.cell[p], paint.seed[p], light.sky[q],
                    turn, view, frames, t, ids, shade, rgb[e, c].reshape(height, 3 * width),
                )  # fmt: skip
            for i in range(height):  # written out: assignments of whole arrays take seconds to compile
                for j in range(width):
                    g = ids[i, j]
                    if wants[1]:
                        depth[e, c, i, j] = t[i, j] if g >= 0 else 0.0
                    if wants[2]:
                        geom[e, c, i, j] = g
                    if wants[3]:
                        body[e, c, i, j] = geoms.body[g] if g >= 0 else -1
