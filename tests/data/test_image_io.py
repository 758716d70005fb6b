"""Reading and writing of images and label maps."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from nnunet_ext.data.geometry import Geometry
from nnunet_ext.data.image_io import read_channels, read_geometry, read_label, write_label
from nnunet_ext.errors import DatasetError

OBLIQUE = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_written_label_has_values_and_geometry_back(tmp_path, ending):
    label = np.random.default_rng(0).integers(0, 5, (3, 4, 5)).astype(np.uint8)
    geometry = Geometry((5, 4, 3), (0.7, 0.8, 3.5), (10.0, -20.0, 30.5), OBLIQUE)
    write_label(tmp_path / f"a{ending}", label, geometry)
    read, found = read_label(tmp_path / f"a{ending}")
    assert np.array_equal(read, label)
    assert read.dtype == np.uint8
    assert geometry.difference(found) is None
    assert geometry.difference(read_geometry(tmp_path / f"a{ending}")) is None


def test_a_failed_write_leaves_neither_half_nor_temporary_file(tmp_path, monkeypatch):
    def write_half(image, path, **_):
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(sitk, "WriteImage", write_half)
    with pytest.raises(KeyboardInterrupt):
        write_label(
            tmp_path / "a.nii.gz",
            np.zeros((1, 1, 1), np.uint8),
            Geometry((1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1)),
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_nifti_voxels_match_simpleitk(tmp_path, dtype):
    array = np.random.default_rng(0).integers(0, 100, (3, 4, 5)).astype(dtype)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.nii.gz"))
    read, _ = read_channels([tmp_path / "a.nii.gz"])
    assert read.shape == (1, 3, 4, 5)
    assert np.array_equal(read[0], array)


def test_scaled_nifti_voxels_match_simpleitk(tmp_path):
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, -1000)
    nib.save(image, tmp_path / "a.nii.gz")
    read, _ = read_channels([tmp_path / "a.nii.gz"])
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii.gz")))
    assert expected.max() > expected.min()
    assert np.allclose(read[0], expected)


def test_real_images_match_simpleitk(shared_data):
    files = [
        *sorted((shared_data / "Dataset004_Hippocampus" / "imagesTr").glob("*.nii.gz"))[:4],
        *sorted((shared_data / "Dataset101_OpenKBPHeadNeck" / "imagesTr").glob("*.nii.gz"))[:1],
        *sorted((shared_data / "sct_spinalcord").glob("t2*.nii.gz")),
        *sorted((shared_data / "isles22_case0009").glob("*.nii.gz")),
    ]
    assert len(files) > 8
    for file in files:
        read, geometry = read_channels([file])
        image = sitk.ReadImage(str(file))
        assert np.allclose(read[0], sitk.GetArrayFromImage(image), rtol=1e-6), file
        expected = Geometry(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
        assert geometry.difference(expected) is None


def test_trailing_axis_of_one_frame_is_dropped(tmp_path):
    array = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(array[..., None], np.eye(4)), tmp_path / "a.nii.gz")
    read, _ = read_channels([tmp_path / "a.nii.gz"])
    assert np.array_equal(read[0], array.transpose(2, 1, 0))


@pytest.mark.parametrize("ending", [".nii.gz", ".png"])
def test_flat_image_gets_one_slice(tmp_path, ending):
    array = np.random.default_rng(0).integers(0, 255, (4, 5)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"a{ending}"))
    read, geometry = read_channels([tmp_path / f"a{ending}"])
    assert read.shape == (1, 1, 4, 5)
    assert np.array_equal(read[0, 0], array)
    assert geometry.size == (5, 4)


@pytest.mark.parametrize("components", [3, 4])
def test_photograph_is_three_channels_with_or_without_alpha(tmp_path, components):
    array = np.random.default_rng(0).integers(0, 255, (4, 5, components)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(tmp_path / "a.png"))
    read, _ = read_channels([tmp_path / "a.png"])
    assert np.array_equal(read[:, 0], array[..., :3].transpose(2, 0, 1))


def test_real_photographs_are_three_channels(shared_data):
    for file in sorted((shared_data / "nuclei2d_dsb2018" / "images").iterdir())[:5]:
        read, _ = read_channels([file])
        assert read.shape[:2] == (3, 1), file


def test_photograph_as_label_is_refused(tmp_path):
    array = np.zeros((4, 5, 3), np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(tmp_path / "a.png"))
    with pytest.raises(DatasetError, match=r"a\.png: a label map must have one component, got 3"):
        read_label(tmp_path / "a.png")


def test_label_values_above_255_are_kept(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.full((1, 2, 2), 300.0, np.float32)), str(tmp_path / "a.nii.gz"))
    label, _ = read_label(tmp_path / "a.nii.gz")
    assert label.dtype == np.int32
    assert (label == 300).all()


def test_absent_file_is_named(tmp_path):
    for read in (read_geometry, read_label, lambda path: read_channels([path])):
        with pytest.raises(DatasetError, match=r"gone\.nii\.gz: no such file"):
            read(tmp_path / "gone.nii.gz")
