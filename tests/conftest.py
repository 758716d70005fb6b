"""What all tests share: real data where it is present, and a tiny phantom data set."""

import signal
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
TINY_SHAPE = (32, 32, 16)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data beside the repository; tests that need it are skipped where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data in ../shared/data, which is not there")
    return folder


@pytest.fixture(scope="session")
def tiny_phantom(tmp_path_factory) -> Path:
    """A thorax phantom of 5 training cases and 2 test cases, 32 x 32 x 16 voxels, nnU-Net raw; read only."""
    from nnunet_ext.data.phantom import write_phantom

    folder = tmp_path_factory.mktemp("raw") / "Dataset900_ThoraxPhantom"
    return write_phantom(folder, num_training=5, num_test=2, shape=TINY_SHAPE)


@pytest.fixture(scope="session", autouse=True)
def interrupts():
    """Let Ctrl-C reach tests that a shell runs in the background, where it is ignored otherwise."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def no_nnunet_folders(monkeypatch) -> None:
    """Keep nnU-Net's folders of the person who runs the tests out of them; a test that needs some sets them."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)
