"""Large arrays of .npz files in pieces: the same values, every damage noticed, little memory."""

import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from evaluation import npz_slabs
from evaluation.errors import CaseError
from evaluation.npz_slabs import open_npz_array
from evaluation.probabilities import errors_named


@pytest.fixture(autouse=True)
def in_many_pieces(monkeypatch):
    """Treat every array as a large one, in slabs of a row or two, read through a straw."""
    monkeypatch.setattr(npz_slabs, "SMALL_BYTES", 0)
    monkeypatch.setattr(npz_slabs, "_SLAB_BYTES", 500)
    monkeypatch.setattr(npz_slabs, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr(npz_slabs, "_PIECE_BYTES", 777)


def opened(path, name="logits"):
    with zipfile.ZipFile(path) as archive:
        return open_npz_array(path, archive, name)


def of_slabs(array):
    pieces = list(array.slabs())
    assert [rows.start for rows, _ in pieces[1:]] == [rows.stop for rows, _ in pieces[:-1]]
    return np.concatenate([values for _, values in pieces], axis=1), len(pieces)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["<f4", "<f2", ">f8", "u1"])
@pytest.mark.parametrize("shape", [(5, 13, 8, 9), (1, 40, 30), (117, 3, 4, 5)])
def test_slabs_put_together_are_the_array(tmp_path, save, dtype, shape):
    values = (np.random.default_rng(0).standard_normal(shape) * 20).round(1).astype(dtype)
    save(tmp_path / "case.npz", other=np.zeros(3), logits=values)
    found, n_slabs = of_slabs(opened(tmp_path / "case.npz"))
    assert n_slabs > 1
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_constant_content_that_inflates_a_thousandfold_is_read_right(tmp_path, save):
    values = np.zeros((3, 200, 50, 50), np.float32)
    values[1], values[2, 100] = 1, 2
    save(tmp_path / "case.npz", logits=values)
    array = opened(tmp_path / "case.npz")
    np.testing.assert_array_equal(of_slabs(array)[0], values)
    for channel, rows, block in array.blocks():
        np.testing.assert_array_equal(block, values[channel, rows])


def test_slabs_can_be_read_again(tmp_path):
    np.savez_compressed(tmp_path / "case.npz", logits=np.random.default_rng(0).random((3, 20, 9, 9)))
    array = opened(tmp_path / "case.npz")
    np.testing.assert_array_equal(of_slabs(array)[0], of_slabs(array)[0])


def test_small_or_fortran_array_is_one_slab(tmp_path, monkeypatch):
    values = np.random.default_rng(0).random((3, 20, 9, 9))
    np.savez_compressed(tmp_path / "fortran.npz", logits=np.asfortranarray(values))
    found, n_slabs = of_slabs(opened(tmp_path / "fortran.npz"))
    assert n_slabs == 1
    np.testing.assert_array_equal(found, values)
    monkeypatch.setattr(npz_slabs, "SMALL_BYTES", values.nbytes)
    np.savez_compressed(tmp_path / "small.npz", logits=values)
    found, n_slabs = of_slabs(opened(tmp_path / "small.npz"))
    assert n_slabs == 1
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("read", ["slabs", "blocks"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_changed_byte_is_noticed(tmp_path, save, read):
    path = tmp_path / "case.npz"
    save(path, logits=np.random.default_rng(0).random((3, 20, 9, 9), np.float32))
    array, content = opened(path), path.read_bytes()
    for place in np.linspace(
        array.data_start + array.header_bytes, array.data_start + array.member.compress_size - 3, 9
    ):
        damaged = bytearray(content)
        damaged[int(place)] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(CaseError, match=r"case\.npz: can't be read"), errors_named(path):
            list(getattr(opened(path), read)())


def test_array_cut_short_inside_a_sound_zip_is_noticed(tmp_path):
    path = tmp_path / "case.npz"
    np.savez(path, logits=np.ones((3, 20, 9, 9), np.float32))
    with zipfile.ZipFile(path) as archive:
        content = archive.read("logits.npy")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("logits.npy", content[:-8])
    with pytest.raises(EOFError, match="cut short, 8 bytes are missing"):
        list(opened(path).slabs())


def test_nan_is_refused(tmp_path):
    values = np.zeros((2, 20, 9, 9), np.float16)
    values[1, 19, 8, 8] = np.nan
    np.savez_compressed(tmp_path / "case.npz", logits=values)
    with pytest.raises(ValueError, match="holds nan"):
        list(opened(tmp_path / "case.npz").slabs())


_MEASURE = """
import sys
from pathlib import Path
import numpy as np
from evaluation.calibration import warm_up_calibration
from evaluation.case_probabilities import labels_with_channel, open_for_case, score_file
from evaluation.probabilities import open_probabilities, read_npz
from evaluation.readers import LabelImage
def peak_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
before = peak_mib()
path = Path(sys.argv[1])
if sys.argv[2] == "slabs":
    for rows, slab in open_probabilities(path, None, None).array.slabs():
        assert slab[2, 0, 0, 0] == rows.start
elif sys.argv[2] == "calibration":
    warm_up_calibration()
    before = peak_mib()
    file, channels = open_for_case(path, path, "auto", None)
    reference = LabelImage(np.zeros(file.geometry.shape, np.uint8), file.geometry, path)
    score_file(file, channels, reference, labels_with_channel(channels, ()), None)
else:
    label_map = read_npz(path, None, None)[0]
    assert label_map[1:].min() == label_map.max() == 2
print(peak_mib() - before)
"""


def peak_growth_mib(tmp_path, shape, how, name="logits"):
    """Return by how much the memory of a process grows that reads an array of this shape."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is measured on Linux")
    values = np.arange(shape[1]) if name == "logits" else np.linspace(0, 1, shape[1])
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    path = tmp_path / "case.npz"
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for channel in range(shape[0]):
            for row in range(shape[1]):
                stream.write(np.full(shape[2:], values[row] if channel == 2 else 0, np.float32))
    geometry = {"spacing": (1.0,) * 3, "origin": (0.0,) * 3, "direction": tuple(np.eye(3).ravel().tolist())}
    (tmp_path / "case.pkl").write_bytes(pickle.dumps({"sitk_stuff": geometry}))
    command = [sys.executable, "-c", _MEASURE, tmp_path / "case.npz", how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_slabs_of_256_mib_need_less_than_100(tmp_path):
    assert peak_growth_mib(tmp_path, (4, 64, 512, 512), "slabs") < 100


def test_label_map_of_256_mib_needs_one_channel_and_itself(tmp_path):
    channel, label_map = 64, 16
    assert peak_growth_mib(tmp_path, (4, 64, 512, 512), "label map") < channel + label_map + 30


@pytest.mark.parametrize("name", ["logits", "probabilities"])
def test_calibration_of_256_mib_needs_less_than_160(tmp_path, name):
    # reference 16 MiB, histograms of 3 labels 25 MiB each, and for probabilities the largest ones and their labels 80
    assert peak_growth_mib(tmp_path, (4, 64, 512, 512), "calibration", name) < 160


@pytest.mark.slow
def test_label_map_of_1_gib_needs_less_than_300_mib(tmp_path):
    assert peak_growth_mib(tmp_path, (5, 200, 512, 512), "label map") < 300


@pytest.mark.slow
def test_slabs_of_1_gib_need_less_than_120_mib(tmp_path):
    assert peak_growth_mib(tmp_path, (5, 200, 512, 512), "slabs") < 120


@pytest.mark.slow
def test_calibration_of_1_gib_needs_less_than_400_mib(tmp_path):
    assert peak_growth_mib(tmp_path, (5, 200, 512, 512), "calibration", "probabilities") < 400
