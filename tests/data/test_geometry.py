"""Canonical axis order and the comparison of grids."""

import itertools

import nibabel as nib
import numpy as np
import pytest

from nnunet_ext.data.geometry import Geometry, from_canonical, to_canonical

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
ORIENTATIONS = [
    "".join(pair[flip] for pair, flip in zip(order, flips, strict=True))
    for order in itertools.permutations(("RL", "AP", "IS"))
    for flips in itertools.product((0, 1), repeat=3)
]


def geometry_of(affine_ras: np.ndarray, size: tuple[int, int, int]) -> Geometry:
    affine = LPS_TO_RAS @ affine_ras
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return Geometry(size, tuple(spacing), tuple(affine[:3, 3]), tuple((affine[:3, :3] / spacing).ravel()))


def rotation(random: np.random.Generator, degrees: float) -> np.ndarray:
    x, y, z = np.radians(random.uniform(-degrees, degrees, 3))
    rotate_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    rotate_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rotate_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return rotate_x @ rotate_y @ rotate_z


def oriented_affine(orientation: str, random: np.random.Generator, degrees: float = 20) -> np.ndarray:
    """Return a RAS affine, oblique by up to 20 degrees an axis, anisotropic, with axes near an orientation."""
    axes = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(orientation), (1, 1, 1))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = rotation(random, degrees) @ axes @ np.diag(random.uniform(0.4, 5, 3))
    affine[:3, 3] = random.uniform(-200, 200, 3)
    return affine


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_canonical_order_is_undone_for_every_orientation(orientation):
    random = np.random.default_rng(0)
    geometry = geometry_of(oriented_affine(orientation, random), (3, 4, 5))
    array = random.normal(size=(2, 5, 4, 3))
    assert np.array_equal(from_canonical(to_canonical(array, geometry), geometry), array)
    assert np.array_equal(from_canonical(to_canonical(array[0], geometry), geometry), array[0])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_canonical_order_matches_nibabel(orientation):
    random = np.random.default_rng(1)
    affine = oriented_affine(orientation, random)
    array_xyz = random.normal(size=(3, 4, 5))
    ras = nib.as_closest_canonical(nib.Nifti1Image(array_xyz, affine)).get_fdata()
    spl = ras[::-1, ::-1].transpose(2, 1, 0)  # x to L, y to P, then (z, y, x)
    assert np.array_equal(to_canonical(array_xyz.T, geometry_of(affine, (3, 4, 5))), spl)


def test_canonical_order_of_a_random_oblique_grid_is_undone():
    random = np.random.default_rng(2)
    for _ in range(200):
        affine = np.eye(4)
        affine[:3, :3] = rotation(random, 180) @ np.diag(random.uniform(0.2, 8, 3) * random.choice([-1, 1], 3))
        size = tuple(int(n) for n in random.integers(1, 6, 3))
        geometry = geometry_of(affine, size)
        array = random.normal(size=size[::-1])
        assert np.array_equal(from_canonical(to_canonical(array, geometry), geometry), array)


def test_flat_images_keep_their_order():
    geometry = Geometry((5, 4), (1.0, 1.0), (0.0, 0.0), (0.0, 1.0, 1.0, 0.0))
    array = np.arange(20).reshape(1, 4, 5)
    assert np.array_equal(to_canonical(array, geometry), array)
    assert geometry.spacing_zyx_mm() == (1.0, 1.0, 1.0)


def test_real_spinal_cord_is_brought_to_slices_along_superior(shared_data):
    image = nib.load(shared_data / "sct_spinalcord" / "t2.nii.gz")
    assert nib.aff2axcodes(image.affine) not in {("L", "P", "S"), ("R", "A", "S")}
    ras = nib.as_closest_canonical(image).get_fdata()
    canonical = to_canonical(image.get_fdata().T, geometry_of(image.affine, image.shape))
    assert np.array_equal(canonical, ras[::-1, ::-1].transpose(2, 1, 0))


def plain(origin_mm=(0.0, 0.0, 0.0), spacing_mm=(1.0, 1.0, 3.0), degrees=0.0, size=(101, 101, 11)) -> Geometry:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return Geometry(size, spacing_mm, origin_mm, (cosine, -sine, 0, sine, cosine, 0, 0, 0, 1))


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (plain(), True),
        (plain(origin_mm=(0.009, 0.0, 0.0)), True),  # 0.9 % of the smallest spacing, 1 mm
        (plain(origin_mm=(0.011, 0.0, 0.0)), False),
        (plain(spacing_mm=(1.00009, 1.0, 3.0)), True),  # 100 steps of 0.00009 mm: 0.009 mm at the far corner
        (plain(spacing_mm=(1.00011, 1.0, 3.0)), False),
        (plain(degrees=0.003), True),  # 141 mm from the first voxel: 141 * 0.003 * pi / 180 = 0.0074 mm
        (plain(degrees=0.005), False),
        (plain(size=(101, 101, 12)), False),
    ],
)
def test_grids_are_the_same_within_one_percent_of_the_smallest_spacing(other, same):
    assert (plain().difference(other) is None) is same
    assert (other.difference(plain()) is None) is same


def test_difference_says_what_differs():
    assert plain().difference(plain(size=(5, 5, 5))) == "sizes (101, 101, 11) and (5, 5, 5)"
    assert "corners up to 10 mm apart" in str(plain().difference(plain(origin_mm=(0.0, 0.0, 10.0))))


def test_affine_matches_nibabel(tmp_path):
    affine = oriented_affine("PSR", np.random.default_rng(3))
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.float32), affine), tmp_path / "a.nii.gz")
    from nnunet_ext.data.image_io import read_geometry

    geometry = read_geometry(tmp_path / "a.nii.gz")
    assert np.allclose(LPS_TO_RAS @ geometry.affine_lps(), affine, atol=1e-4)
    assert geometry.size == (3, 4, 5)
