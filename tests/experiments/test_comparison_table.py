"""The comparison's cells and the README's table of them."""

import json
import math
from importlib import import_module

import pytest
from compared_methods import DATASETS, METHODS
from compared_results import cell_file, mean_dice, overview

from nnunet_ext.options import parse_settings
from nnunet_ext.recipe import resolve


def test_readme_shows_the_table_of_the_committed_cells(repository):
    assert overview(10, repository) in (repository / "README.md").read_text(encoding="utf-8")


def test_committed_cells_say_what_was_run(repository):
    cells = [cell_file(method, dataset, 10, repository) for method in METHODS for dataset in DATASETS]
    present = [file for file in cells if file.is_file()]
    assert present
    for file in present:
        cell = json.loads(file.read_text(encoding="utf-8"))
        assert file.name.startswith(f"{cell['dataset']}-{cell['method']}-")
        assert cell["commands"]
        assert cell["seed"] == 0 or cell["method"].startswith("nnunet")  # None: drawn anew
        assert all(cell["scores"].values())


def test_what_was_not_run_is_shown_as_such(tmp_path):
    rows = overview(10, tmp_path).splitlines()[2:]
    assert len(rows) == len(METHODS)
    assert all(row.count("not run") == len(DATASETS) for row in rows)


def test_a_missing_label_value_does_not_count_in_the_mean():
    scores = {"a": {"dice": {"1": 0.5, "2": "nan"}}, "b": {"dice": {"1": 1.0, "2": 0.0}}}
    assert mean_dice(scores) == pytest.approx({"a": 0.5, "b": 0.5, "mean": 0.5})


def test_a_label_that_no_case_has_does_not_count_in_the_mean():
    means = mean_dice({"a": {"dice": {"1": 0.5}}, "b": {"dice": {"1": "nan", "2": "nan"}}})
    assert math.isnan(means["b"])
    assert (means["a"], means["mean"]) == (0.5, 0.5)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.trainer])
def test_options_of_each_trainer_are_those_of_its_preset(name):
    """`configure` knows no trainer, so what a preset says must stand among the options."""
    method = METHODS[name]
    given = parse_settings(option.replace("{base}", "FILE") for option in method.options)
    patch_size = (64, 64, 64) if method.configuration == "3d_fullres" else (64, 64)
    trainer = getattr(import_module(f"nnunet_ext.trainers.{method.trainer}"), method.trainer)
    options = resolve(given, patch_size=patch_size)
    assert {key: getattr(options, key) for key in trainer.preset} == trainer.preset
