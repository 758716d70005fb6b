"""DICOM segmentations as references and predictions: same scores as NIfTI files of the same labels."""

import pickle
import sys

import nibabel as nib
import numpy as np
import pytest

hd = pytest.importorskip("highdicom")

from pydicom import dcmread  # noqa: E402
from pydicom.sr.codedict import codes  # noqa: E402
from pydicom.uid import generate_uid  # noqa: E402

from evaluation import threshold  # noqa: E402
from evaluation.dicom_seg import read_dicom_seg  # noqa: E402
from evaluation.probability_scores import CALIBRATION_METRICS  # noqa: E402

SPACING, ORIGIN_LPS = (2.0, 0.75, 0.5), (-30.0, -20.0, 100.0)


def ct_slices(n_slices, shape, spacing=SPACING, origin=ORIGIN_LPS, row=(1, 0, 0), column=(0, 1, 0)):
    """Return headers of the CT that a segmentation is made of; the slices go up from the origin."""
    from pydicom.dataset import Dataset, FileMetaDataset

    slices, study, series, frame_of_reference = [], *(generate_uid() for _ in range(3))
    for index in range(n_slices):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame_of_reference
        data.PatientID = data.PatientName = data.PatientBirthDate = data.PatientSex = ""
        data.StudyID = data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = ""
        data.Modality, data.InstanceNumber = "CT", index + 1
        data.Rows, data.Columns = shape
        data.PixelSpacing, data.SliceThickness = list(spacing[1:]), 3.0  # thicker than the slices are apart
        data.ImageOrientationPatient = [*row, *column]
        data.ImagePositionPatient = list(np.add(origin, np.multiply(np.cross(row, column), index * spacing[0])))
        slices.append(data)
    return slices


def write_seg(path, array, slices, kind="BINARY", masks=None):
    """Write labels (slices, rows, columns) as a DICOM segmentation; slices without a label get no frame."""
    numbers = range(1, (masks.shape[-1] if masks is not None else int(array.max())) + 1)
    described = [
        hd.seg.SegmentDescription(
            number, f"organ {number}", codes.SCT.Organ, codes.SCT.Liver, hd.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number in numbers
    ]
    pixels = masks if masks is not None else array
    dataset = hd.seg.Segmentation(
        slices,
        pixels.astype(np.uint8),
        kind,
        described,
        generate_uid(),
        1,
        generate_uid(),
        1,
        "maker",
        "model",
        "1",
        "0",
    )
    dataset.save_as(path)
    return path


@pytest.fixture
def labels():
    """Return a reference and a prediction (9, 20, 24) of labels 1 and 3, empty in the first and last slices."""
    reference, prediction = np.zeros((2, 9, 20, 24), np.uint8)
    reference[2:6, 4:12, 5:15], prediction[3:7, 5:12, 5:14] = 1, 1
    reference[4:6, 15:18, 5:15], prediction[4:6, 14:18, 6:15] = 3, 3
    return reference, prediction


def nifti_of(workspace, path, array, origin_lps=ORIGIN_LPS):
    """Write NIfTI the way converters do: rows from the last to the first, the grid otherwise that of the slices."""
    affine = np.diag([-SPACING[2], SPACING[1], SPACING[0], 1.0])
    affine[:3, 3] = (-origin_lps[0], -(origin_lps[1] + (array.shape[1] - 1) * SPACING[1]), origin_lps[2])
    nib.save(nib.Nifti1Image(array[:, ::-1].T, affine), path)


def values(run):
    return {(row["label"], row["metric"]): float(row["value"]) for row in run.rows}


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("as_dicom", [("predictions",), ("references",), ("predictions", "references")])
def test_scores_are_those_of_nifti_files(workspace, labels, as_dicom, kind):
    slices = ct_slices(9, (20, 24))
    for folder, array in zip((workspace.references, workspace.predictions), labels, strict=True):
        nifti_of(workspace, folder / "case.nii.gz", array)
    expected = workspace.run("--labels", "1", "3", output=workspace.root / "expected")
    for folder, array in zip((workspace.references, workspace.predictions), labels, strict=True):
        if folder.name in as_dicom:
            (folder / "case.nii.gz").unlink()
            write_seg(folder / "case.dcm", array, slices, kind)
    run = workspace.run("--labels", "1", "3")
    assert run.code == 0, run.err
    found, wanted = values(run), values(expected)
    assert ("specificity and the image's diagonal leave those out" in run.err) == (len(as_dicom) == 2)
    if len(as_dicom) == 2:
        wanted = {key: value for key, value in wanted.items() if key[1] != "specificity"}
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, rel=1e-12)
    assert found["1", "hd_mm"] > 0


@pytest.mark.parametrize("columns", range(8, 16))
def test_frames_needn_t_start_at_whole_bytes(tmp_path, columns):
    array = (np.random.default_rng(columns).random((7, 3, columns)) < 0.5).astype(np.uint8)  # 3 * columns mod 8: 0..7
    array[:, 0, 0] = 1
    path = write_seg(tmp_path / "case.dcm", array, ct_slices(7, array.shape[1:]))
    assert dcmread(path).BitsAllocated == 1
    np.testing.assert_array_equal(read_dicom_seg(path)[0], array)


def test_frames_that_are_cut_short_are_refused(tmp_path, labels):
    path = write_seg(tmp_path / "case.dcm", labels[0], ct_slices(9, (20, 24)))
    data = dcmread(path)
    data.PixelData = data.PixelData[:-2]
    data.save_as(path)
    with pytest.raises(ValueError, match=r"case\.dcm: 6 frames of 20 x 24 pixels need 360 bytes, got 358"):
        read_dicom_seg(path)


def test_slices_without_labels_between_others_are_filled_in(workspace, labels):
    reference = labels[0].copy()
    reference[[3, 5]] = 0
    reference[8] = 1  # frames at 2, 4 and 8
    nifti_of(workspace, workspace.references / "case.nii.gz", reference)
    write_seg(workspace.predictions / "case.dcm", reference, ct_slices(9, (20, 24)))
    run = workspace.run()
    assert run.code == 0 and run.value("dice") == 1 and run.value("dice", label="3") == 1
    only = np.zeros_like(reference)
    only[4] = reference[4]
    nifti_of(workspace, workspace.references / "case.nii.gz", only)
    write_seg(workspace.predictions / "case.dcm", only, ct_slices(9, (20, 24)))
    assert workspace.run().value("dice") == 1  # one frame doesn't say how far its neighbours are


def test_two_segmentations_need_not_have_frames_in_the_same_slices(workspace):
    reference, prediction = np.zeros((2, 9, 20, 24), np.uint8)
    reference[1:4, 5:10, 5:10] = prediction[6:8, 5:10, 5:10] = 1
    for folder, array in ((workspace.references, reference), (workspace.predictions, prediction)):
        write_seg(folder / "case.dcm", array, ct_slices(9, (20, 24)))
    run = workspace.run()
    assert run.value("dice") == 0
    assert run.value("hd_mm") == pytest.approx(5 * 2.0)  # slice 1 to slice 6


def with_measures(path, **measures):
    data = dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    shared.pop("SpacingBetweenSlices", None)
    for name, value in measures.items():
        setattr(shared, name, value)
    data.save_as(path)
    return path


@pytest.mark.parametrize(
    ("stated_mm", "n_slices", "distance_mm"),
    [
        ("2.0", 9, 2.0),
        ("1.99", 9, 2.0),  # rounded; the positions are taken for exact
        (None, 5, 4.0),  # nothing tells that slices are left out
        ("3.0", 5, 4.0),  # can't be
        ("40.0", 5, 4.0),
    ],
)
def test_labels_in_every_second_slice_lie_as_far_apart_as_the_file_states(tmp_path, stated_mm, n_slices, distance_mm):
    array = np.zeros((9, 20, 24), np.uint8)
    array[::2, 4:12, 5:15] = 1
    path = write_seg(tmp_path / "case.dcm", array, ct_slices(9, (20, 24)))
    with_measures(path, **({"SpacingBetweenSlices": stated_mm} if stated_mm else {}))
    found, geometry, is_known = read_dicom_seg(path)
    assert found.shape[0] == n_slices and is_known
    assert geometry.spacing_mm[0] == pytest.approx(distance_mm, rel=1e-9)


@pytest.mark.parametrize("stated_mm", ["2.0", None])
def test_thickness_of_a_single_slice_is_said_to_stand_in(workspace, labels, stated_mm):
    for folder in (workspace.references, workspace.predictions):
        array = np.zeros((9, 20, 24), np.uint8)
        array[4, 4:12, 5:15] = 1
        path = write_seg(folder / "case.dcm", array, ct_slices(9, (20, 24)))
        with_measures(path, **({"SpacingBetweenSlices": stated_mm} if stated_mm else {}))
    run = workspace.run()
    warning = "neither says how far slices are apart, so that their thickness, 3 mm, is taken for it; volumes and dist"
    assert (warning in run.err) == (stated_mm is None)
    assert run.value("reference_ml") == pytest.approx(80 * 0.375 * (2.0 if stated_mm else 3.0) / 1000)


def test_sagittal_slices_are_turned_onto_the_grid(workspace, labels):
    array = labels[0]  # (z, y, x)
    nifti_of(workspace, workspace.references / "case.nii.gz", array)
    spacing = (SPACING[2], SPACING[0], SPACING[1])
    top = (ORIGIN_LPS[0], ORIGIN_LPS[1], ORIGIN_LPS[2] + 8 * SPACING[0])
    slices = ct_slices(24, (9, 20), spacing, origin=top, row=(0, 1, 0), column=(0, 0, -1))
    normal = np.cross((0, 1, 0), (0, 0, -1))
    assert normal.tolist() == [-1, 0, 0]
    turned = array[::-1].transpose(2, 0, 1)  # (x, -z, y)
    for index, data in enumerate(slices):
        data.ImagePositionPatient = [ORIGIN_LPS[0] + index * SPACING[2], *top[1:]]
    write_seg(workspace.predictions / "case.dcm", turned, slices)
    run = workspace.run()
    assert run.code == 0, run.err
    assert run.value("dice") == 1 and run.value("dice", label="3") == 1


def test_shifted_segmentation_is_refused(workspace, labels):
    nifti_of(workspace, workspace.references / "case.nii.gz", labels[0])
    shifted = np.add(ORIGIN_LPS, (0.2, 0, 0))
    write_seg(workspace.predictions / "case.dcm", labels[1], ct_slices(9, (20, 24), origin=shifted))
    run = workspace.run()
    assert run.code == 1 and "geometries must be the same, got voxel corners up to 0.2 mm apart" in run.err


def test_label_outside_the_counterpart_is_refused(workspace, labels):
    nifti_of(workspace, workspace.references / "case.nii.gz", labels[0][:5])
    write_seg(workspace.predictions / "case.dcm", labels[1], ct_slices(9, (20, 24)))
    run = workspace.run()
    assert run.code == 1 and "must lie in the image of the second, got some outside" in run.err


def test_reference_without_its_empty_slices_is_no_grid_to_resample_onto(workspace, labels):
    nifti_of(workspace, workspace.predictions / "case.nii.gz", labels[1], origin_lps=np.add(ORIGIN_LPS, 0.2))
    write_seg(workspace.references / "case.dcm", labels[0], ct_slices(9, (20, 24)))
    assert workspace.run("--resample").code == 1


def test_prediction_on_another_grid_is_resampled_if_asked(workspace, labels):
    nifti_of(workspace, workspace.references / "case.nii.gz", labels[0], origin_lps=np.add(ORIGIN_LPS, 0.2))
    write_seg(workspace.predictions / "case.dcm", labels[0], ct_slices(9, (20, 24)))
    run = workspace.run("--resample")
    assert run.code == 0 and run.value("dice") == 1  # 0.2 mm is less than half a voxel


def test_overlapping_segments_are_named(tmp_path):
    masks = np.zeros((4, 10, 10, 3), bool)
    masks[1, 2:6, 2:6, 0] = masks[1, 5:8, 5:8, 2] = masks[2, 0, 0, 1] = True
    path = write_seg(tmp_path / "case.dcm", None, ct_slices(4, (10, 10)), masks=masks)
    with pytest.raises(ValueError, match=r"case\.dcm: .* got segments 1 and 3 in one place"):
        read_dicom_seg(path)


def test_other_dicom_files_are_refused(tmp_path, labels):
    ct_slices(1, (4, 4))[0].save_as(tmp_path / "ct.dcm", enforce_file_format=True)
    with pytest.raises(ValueError, match=r"must be a DICOM segmentation of type BINARY or LABELMAP, got modality CT"):
        read_dicom_seg(tmp_path / "ct.dcm")
    path = write_seg(tmp_path / "case.dcm", labels[0], ct_slices(9, (20, 24)))
    data = dcmread(path)
    data.SegmentationType = "FRACTIONAL"
    data.save_as(path)
    with pytest.raises(ValueError, match="got modality SEG, type FRACTIONAL"):
        read_dicom_seg(path)
    data.SegmentationType = "BINARY"
    data.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient[0] += 5
    data.save_as(path)
    with pytest.raises(ValueError, match="must lie above each other, got some 5 mm beside"):
        read_dicom_seg(path)


def write_npz(workspace, n_slices=9, seed=0, shift_mm=0.0):
    """Write probabilities of labels 1 to 3 on the grid of the slices."""
    p = np.random.default_rng(seed).dirichlet(np.ones(4), (n_slices, 20, 24)).astype(np.float32)
    np.savez_compressed(workspace.predictions / "case.npz", probabilities=np.moveaxis(p, -1, 0))
    origin = tuple(np.add(ORIGIN_LPS, shift_mm))
    sitk = {"spacing": SPACING[::-1], "origin": origin, "direction": tuple(np.eye(3).ravel())}
    (workspace.predictions / "case.pkl").write_bytes(pickle.dumps({"sitk_stuff": sitk}))


def write_nifti_on_slices(path, array):
    """Write NIfTI with the rows in the order of the slices."""
    affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    affine[:3, 3] = -ORIGIN_LPS[0], -ORIGIN_LPS[1], ORIGIN_LPS[2]
    nib.save(nib.Nifti1Image(array.T, affine), path)


def test_thresholds_are_those_of_nifti_references(workspace, labels):
    write_npz(workspace)
    write_nifti_on_slices(workspace.references / "case.nii.gz", labels[0])
    assert workspace.run(module=threshold, output=workspace.root / "expected").code == 0
    (workspace.references / "case.nii.gz").unlink()
    write_seg(workspace.references / "case.dcm", labels[0], ct_slices(9, (20, 24)))
    run = workspace.run(module=threshold)
    assert run.code == 0, run.err
    for name in ("thresholds.csv", "curves.json"):
        assert (workspace.scores / name).read_bytes() == (workspace.root / "expected" / name).read_bytes()


def test_calibration_of_two_segmentations_is_that_of_nifti_files(workspace, labels):
    write_npz(workspace)
    for folder, array in zip((workspace.references, workspace.predictions), labels, strict=True):
        write_nifti_on_slices(folder / "case.nii.gz", array)
    expected = values(workspace.run("--also", "calibration", output=workspace.root / "expected"))
    for folder, array in zip((workspace.references, workspace.predictions), labels, strict=True):
        (folder / "case.nii.gz").unlink()
        write_seg(folder / "case.dcm", array, ct_slices(9, (20, 24)))
    run = workspace.run("--also", "calibration")
    assert run.code == 0, run.err
    found = values(run)
    wanted = {key: value for key, value in expected.items() if key[1] in CALIBRATION_METRICS}
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, rel=1e-12, nan_ok=True)
    assert found["1", "auroc"] > 0


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        ({"n_slices": 5}, "case.npz: the labels of the first must lie in the image of the second, got some outside"),
        ({"shift_mm": 0.2}, "geometries must be the same"),
    ],
)
def test_probabilities_on_another_grid_than_a_segmentation_are_refused(workspace, labels, prediction, message):
    write_npz(workspace, **prediction)
    write_seg(workspace.references / "case.dcm", labels[0], ct_slices(9, (20, 24)))
    run = workspace.run(module=threshold)
    assert run.code != 0 and message in run.err


def test_damaged_file_and_missing_package_are_named(workspace, labels, monkeypatch):
    nifti_of(workspace, workspace.references / "case.nii.gz", labels[0])
    path = workspace.predictions / "case.dcm"
    path.write_bytes(b"DICOM")
    run = workspace.run()
    assert run.code == 1 and f"{path}: can't be read" in run.err
    monkeypatch.setitem(sys.modules, "pydicom", None)
    run = workspace.run()
    assert run.code == 1 and f"{path}: DICOM needs the package pydicom" in run.err


def test_real_ct_with_31_organs(workspace, real_data):
    folder = real_data / "dicom_ct_totalsegmentator"
    slices = sorted(
        (dcmread(path, stop_before_pixels=True) for path in (folder / "CT").iterdir()),
        key=lambda data: data.ImagePositionPatient[2],
    )
    study, frame_of_reference = generate_uid(), generate_uid()
    for data in slices:  # taken out of the published files
        data.SOPClassUID, data.SOPInstanceUID = data.file_meta.MediaStorageSOPClassUID, generate_uid()
        data.StudyInstanceUID, data.FrameOfReferenceUID = study, frame_of_reference
    source = nib.load(folder / "example_seg_dicom.nii.gz")
    organs = np.asanyarray(source.dataobj)
    present, numbered = np.unique(organs, return_inverse=True)
    numbered = numbered.reshape(organs.shape).astype(np.uint8)
    nib.save(nib.Nifti1Image(numbered, source.affine), workspace.references / "case.nii.gz")
    write_seg(workspace.predictions / "case.dcm", numbered.T[:, ::-1], slices)
    run = workspace.run()
    assert run.code == 0, run.err
    dices = [float(row["value"]) for row in run.rows if row["metric"] == "dice"]
    assert dices == [1.0] * (len(present) - 1)
