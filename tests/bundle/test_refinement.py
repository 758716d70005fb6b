"""The model that the CRF's bundle writes where nothing is trained."""

import torch
from base_files import write_enet_run

from nnunet_ext import atomic
from nnunet_ext.bundle.checkpoints import fingerprint
from nnunet_ext.bundle.refinement import crf_checkpoint


def test_untrained_model_is_the_same_file_in_another_process(tiny_phantom, tmp_path, monkeypatch):
    """By which an interrupted prediction knows its own cases again; files are made under the process's number."""
    base, prints = write_enet_run(tiny_phantom), []
    for number in (1, 2):
        monkeypatch.setattr(atomic.os, "getpid", lambda number=number: number)
        file = crf_checkpoint("inference", "runs", "bundles/crf", tiny_phantom, base, {}, tmp_path / str(number))
        prints.append(fingerprint(file))
    assert prints[0] == prints[1]
    assert "crf.smoothness.raw_weight" in torch.load(file, weights_only=True)
