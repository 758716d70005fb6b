"""Predictions lie on their images, voxel by voxel, in nnU-Net's layout."""

import pickle

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator

from nnunet_ext.bundle import InferenceDataset, PredictionWriter, ResizedSliceInferer, write_prediction
from nnunet_ext.data.geometry import Geometry
from nnunet_ext.data.image_io import read_geometry

REGIONS = {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]},
    "regions_class_order": [1, 2, 3],
}


def oblique(orientation: str) -> np.ndarray:
    """Return an anisotropic RAS affine, oblique by 10 to 20 degrees about each axis."""
    axes = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(orientation), (1, 1, 1))[:3, :3]
    x, y, z = np.radians((10, -20, 15))
    turn = (
        np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
        @ np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        @ np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes @ np.diag((0.7, 1.3, 4.0))
    affine[:3, 3] = (-50.5, 20.25, 300)
    return affine


def threshold(x: torch.Tensor) -> torch.Tensor:
    """A network of 3 outputs: label 1 above 50, label 2 above 100."""
    return torch.cat([50 - x[:, :1], (x[:, :1] - 50).clamp(max=50), 2 * x[:, :1] - 150], dim=1)


def predict(images_dir, output_dir, card, checkpoint, network=threshold, **options) -> InferenceDataset:
    dataset = InferenceDataset(images_dir, card, checkpoint, output_dir, **options)
    saves = {key: value for key, value in options.items() if key.startswith("save")}
    SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(dataset, batch_size=1),
        epoch_length=len(dataset.pending()),
        network=torch.nn.Identity(),
        inferer=_Inferer(card.image_size, network),
        val_handlers=[PredictionWriter(output_dir, card, dataset.geometries.pop, **saves)],
        decollate=False,
    ).run()
    return dataset


class _Inferer(ResizedSliceInferer):
    def __init__(self, image_size, function) -> None:
        super().__init__(image_size)
        self.function = function

    def __call__(self, inputs, network, *args, **kwargs):
        return super().__call__(inputs, self.function)


@pytest.fixture
def images_dir(tmp_path):
    """Noisy images in four orientations, oblique and anisotropic, of 20 x 24 x 6 voxels."""
    folder = tmp_path / "imagesTs"
    folder.mkdir()
    for number, orientation in enumerate(("RAS", "LPS", "SAR", "PIL")):
        values = np.random.default_rng(number).uniform(0, 150, (20, 24, 6)).astype(np.float32)
        nib.save(nib.Nifti1Image(values, oblique(orientation)), folder / f"{orientation}_0000.nii.gz")
    return folder


def expected_label(image: np.ndarray) -> np.ndarray:
    return (image > 50).astype(int) + (image > 100)


def canvas_of(images_dir, slice_axis) -> dict[str, tuple[int, int]]:
    """Return the (H, W) of each case's canonical slices, so that nothing is interpolated."""
    sizes = {}
    for path in images_dir.iterdir():
        ras = nib.as_closest_canonical(nib.load(path)).shape
        spl = ras[::-1]
        sizes[path.name[:3]] = tuple(n for axis, n in enumerate(spl) if axis != slice_axis)
    return sizes


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_prediction_overlays_its_image_voxel_by_voxel(images_dir, tmp_path, make_card, checkpoint, slice_axis):
    for case, size in canvas_of(images_dir, slice_axis).items():
        alone = tmp_path / case
        alone.mkdir()
        (images_dir / f"{case}_0000.nii.gz").rename(alone / f"{case}_0000.nii.gz")
        output = tmp_path / "out" / case
        predict(alone, output, make_card(slice_axis=slice_axis, image_size=size), checkpoint)
        image, label = nib.load(alone / f"{case}_0000.nii.gz"), nib.load(output / f"{case}.nii.gz")
        assert label.get_data_dtype() == np.uint8
        assert np.allclose(label.affine, image.affine, atol=1e-4), case
        assert np.array_equal(np.asarray(label.dataobj), expected_label(image.get_fdata())), case


def test_prediction_has_the_geometry_of_its_image(images_dir, tmp_path, make_card, checkpoint):
    predict(images_dir, tmp_path / "out", make_card(), checkpoint)
    for path in images_dir.iterdir():
        image, label = (sitk.ReadImage(str(p)) for p in (path, tmp_path / "out" / path.name.replace("_0000", "")))
        assert image.GetSize() == label.GetSize()
        for name in ("GetSpacing", "GetOrigin", "GetDirection"):
            assert np.allclose(getattr(image, name)(), getattr(label, name)(), atol=1e-5), (path.name, name)


def test_npz_lies_on_the_image_and_agrees_with_the_labels(images_dir, tmp_path, make_card, checkpoint):
    predict(images_dir, tmp_path / "out", make_card(), checkpoint, save_probabilities=True, save_logits=True)
    for case in ("RAS", "LPS", "SAR", "PIL"):
        label = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / f"{case}.nii.gz")))
        with np.load(tmp_path / "out" / f"{case}.npz") as arrays:
            probabilities, logits = arrays["probabilities"], arrays["logits"]
        assert probabilities.shape == logits.shape == (3, *label.shape)
        assert probabilities.dtype == logits.dtype == np.float32
        assert np.allclose(probabilities.sum(axis=0), 1, atol=1e-5)
        assert np.array_equal(logits.argmax(axis=0), label)
        assert (np.take_along_axis(probabilities, label[None].astype(int), 0)[0] >= probabilities.max(0) - 1e-6).all()


def test_npz_holds_only_what_was_asked_for(images_dir, tmp_path, make_card, checkpoint):
    predict(images_dir, tmp_path / "probabilities", make_card(), checkpoint, save_probabilities=True)
    predict(images_dir, tmp_path / "logits", make_card(), checkpoint, save_logits=True)
    predict(images_dir, tmp_path / "labels", make_card(), checkpoint)
    assert np.load(tmp_path / "probabilities" / "RAS.npz").files == ["probabilities"]
    assert np.load(tmp_path / "logits" / "RAS.npz").files == ["logits"]
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == [
        *("LPS.nii.gz", "PIL.nii.gz", "RAS.nii.gz", "SAR.nii.gz"),
        *("dataset.json", "plans.json", "prediction.json"),
    ]


def test_properties_are_nnunets(images_dir, tmp_path, make_card, checkpoint):
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    predict(images_dir, tmp_path / "out", make_card(), checkpoint, save_probabilities=True)
    for path in images_dir.iterdir():
        case = path.name[:3]
        ours = pickle.loads((tmp_path / "out" / f"{case}.pkl").read_bytes())
        _, theirs = SimpleITKIO().read_images([str(path)])
        assert ours.keys() == theirs.keys()
        assert np.allclose(ours["spacing"], theirs["spacing"])
        for key, value in theirs["sitk_stuff"].items():
            assert np.allclose(ours["sitk_stuff"][key], value), key


def test_region_probabilities_are_sigmoids_and_labels_are_painted_in_order(tmp_path, make_card):
    logits = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (3, 2, 4, 5)).astype(np.float32))
    geometry = Geometry((5, 4, 2), (1, 1, 2), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    write_prediction(tmp_path, "a", logits, geometry, make_card(REGIONS), save_probabilities=True)
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii.gz")))
    with np.load(tmp_path / "a.npz") as arrays:
        probabilities = arrays["probabilities"]
    assert np.allclose(probabilities, torch.sigmoid(logits).numpy())
    whole, core, enhancing = probabilities > 0.5
    assert np.array_equal(label, np.select([enhancing, core, whole], [3, 2, 1], 0))


@pytest.mark.parametrize("ending", [".png", ".nii.gz"])
def test_flat_images_get_flat_labels(tmp_path, make_card, checkpoint, ending):
    folder = tmp_path / "images"
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 150, (32, 32)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / f"a_0000{ending}"))
    predict(folder, tmp_path / "out", make_card(file_ending=ending), checkpoint, save_probabilities=True)
    assert read_geometry(tmp_path / "out" / f"a{ending}").dimension == 2
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / f"a{ending}")))
    assert np.array_equal(label, expected_label(values))
    assert np.load(tmp_path / "out" / "a.npz")["probabilities"].shape == (3, 1, 32, 32)


def test_arrays_that_are_there_are_made_again_with_the_label(tmp_path, make_card):
    geometry = Geometry((5, 4, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    write_prediction(tmp_path, "a", torch.zeros(3, 2, 4, 5), geometry, make_card(), save_probabilities=True)
    write_prediction(tmp_path, "a", torch.ones(3, 2, 4, 5), geometry, make_card(), save_logits=True)
    write_prediction(tmp_path, "a", torch.full((3, 2, 4, 5), 2.0), geometry, make_card())
    with np.load(tmp_path / "a.npz") as arrays:
        assert set(arrays.files) == {"probabilities", "logits"}
        assert (arrays["logits"] == 2).all()


def test_case_that_breaks_a_run_off_is_named_and_the_others_are_kept(
    images_dir, tmp_path, make_card, checkpoint, caplog
):
    def network(x):
        if (tmp_path / "out" / "LPS.nii.gz").is_file():
            raise torch.OutOfMemoryError("no memory left")
        return threshold(x)

    with pytest.raises(torch.OutOfMemoryError):
        predict(images_dir, tmp_path / "out", make_card(), checkpoint, network)
    assert "case PIL failed; those before it lie in" in caplog.text
    assert len(predict(images_dir, tmp_path / "out", make_card(), checkpoint).cases) == 4
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 4


def test_the_label_file_comes_last(tmp_path, make_card, monkeypatch):
    from nnunet_ext.bundle import prediction_writer

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prediction_writer, "write_label", killed)
    geometry = Geometry((5, 4, 2), (1, 1, 2), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    with pytest.raises(KeyboardInterrupt):
        write_prediction(tmp_path, "a", torch.zeros(3, 2, 4, 5), geometry, make_card(), save_logits=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "a.pkl"]


def test_real_image_of_unusual_axes_is_overlaid(shared_data, tmp_path, make_card, checkpoint):
    source = shared_data / "sct_spinalcord" / "t2.nii.gz"
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "t2_0000.nii.gz").symlink_to(source)
    values = nib.load(source).get_fdata()
    size = nib.as_closest_canonical(nib.load(source)).shape[::-1][1:]
    cut = float(np.percentile(values, 90)) + 0.25

    def above(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([cut - x, x - cut, torch.full_like(x, -1e3)], dim=1)

    predict(folder, tmp_path / "out", make_card(image_size=size), checkpoint, network=above)
    label = nib.load(tmp_path / "out" / "t2.nii.gz")
    assert np.allclose(label.affine, nib.load(source).affine, atol=1e-4)
    assert np.array_equal(np.asarray(label.dataobj) > 0, values > cut)
