"""Weight files are read without running code, and what is wrong with one is said."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from sam_lora.checkpoint_file import CheckpointError, read_checkpoint

WEIGHTS = {"a.weight": torch.arange(3.0), "b.bias": torch.ones(2, 2)}


@pytest.mark.parametrize("nest", [None, "model", "state_dict", "network_weights"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_tensors_are_found_whatever_they_are_wrapped_in(tmp_path, nest, prefix):
    state = {prefix + name: value for name, value in WEIGHTS.items()}
    torch.save({nest: state, "epoch": 3} if nest else state, tmp_path / "w.pth")
    found = read_checkpoint(tmp_path / "w.pth")
    assert set(found) == set(WEIGHTS)
    assert torch.equal(found["a.weight"], WEIGHTS["a.weight"])


def test_safetensors_are_read(tmp_path):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert set(read_checkpoint(tmp_path / "w.safetensors")) == set(WEIGHTS)


class _Bomb:
    def __init__(self, target) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("writer", [torch.save, lambda content, file: file.write_bytes(pickle.dumps(content))])
def test_code_in_a_file_is_not_run(tmp_path, writer):
    writer({"a": _Bomb(tmp_path / "owned")}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="could run code"):
        read_checkpoint(tmp_path / "w.pth")
    assert not (tmp_path / "owned").exists()


def test_truncated_file_is_called_cut_off(tmp_path):
    torch.save({"a": torch.randn(1000)}, tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 20):
        (tmp_path / "w.pth").write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"w.pth: "):
            read_checkpoint(tmp_path / "w.pth")
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(tmp_path / "w.safetensors")


@pytest.mark.parametrize("text", [b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n"])
def test_web_page_and_pointer_are_no_weight_file(tmp_path, text):
    (tmp_path / "w.pth").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"w.pth: "):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], torch.zeros(3)])
def test_file_without_a_state_dict_says_what_it_holds(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="must hold a state dict, holds"):
        read_checkpoint(tmp_path / "w.pth")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "text", ["this is no checkpoint", "hello world", "", "ARTICLE", "quit", ".", "Mode: text", "u"]
)
def test_text_is_refused_whatever_it_begins_with(tmp_path, text):
    file = tmp_path / "weights.pth"
    file.write_text(text)
    with pytest.raises(CheckpointError, match=r"no weight file; it (begins with|is empty)"):
        read_checkpoint(file)
