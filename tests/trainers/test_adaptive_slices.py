"""nnU-Net's loader shows the slices of the sampler: the epoch reaches its processes, and a resumed training goes on."""

import json
import multiprocessing
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from nnunet_ext.data import BackgroundSchedule, make_sampler
from nnunet_ext.data.foreground_index import SliceKinds, index_foreground
from nnunet_ext.data.scheduled_slices import ScheduledSlices, SliceTable, schedule_slices
from nnunet_ext.errors import OptionError
from nnunet_ext.options import Options
from nnunet_ext.trainers.CustomTrainer import CustomTrainer
from nnunet_ext.trainers.nnUNetTrainerAdaptiveSampler import nnUNetTrainerAdaptiveSampler

EPOCHS, ITERATIONS, BATCH_SIZE = 5, 25, 4
SETTINGS = (
    *("network=enet", "sampler=adaptive", f"epochs={EPOCHS}", f"batch_size={BATCH_SIZE}"),
    *(f"iterations_per_epoch={ITERATIONS}", "val_iterations_per_epoch=1", "network.input_scale=1"),
)
WITH_LABEL, WITHOUT = 16, 8  # four training cases of six slices, of which the first and the last are empty


@pytest.fixture
def shown(folders, monkeypatch) -> list[list[bool]]:
    """By epoch, whether each slice that the network would train on is without a label; nothing is trained."""
    epochs: list[list[bool]] = []

    def look(trainer, batch):
        while len(epochs) <= trainer.current_epoch:
            epochs.append([])
        epochs[trainer.current_epoch] += [not bool((label > 0).any()) for label in batch["target"]]
        return {"loss": np.array(0.0)}

    monkeypatch.setattr(CustomTrainer, "train_step", look)
    monkeypatch.setattr(CustomTrainer, "get_training_transforms", lambda *_, **__: None)
    return epochs


@pytest.mark.parametrize("workers", ["0", "2"])
def test_share_of_background_slices_follows_the_schedule(folders, shown, monkeypatch, workers):
    monkeypatch.setenv("nnUNet_n_proc_DA", workers)
    folders.configure("2d_adaptive", *SETTINGS)
    folders.trainer(CustomTrainer, "2d_adaptive").run_training()
    for epoch, without in enumerate(shown):
        probability = epoch / (EPOCHS - 1)
        expected = probability * WITHOUT / (WITH_LABEL + probability * WITHOUT)
        # two workers may swap a batch over the end of an epoch
        count = max(0, sum(without) - (BATCH_SIZE if workers == "2" and epoch == 0 else 0))
        assert stats.binomtest(count, ITERATIONS * BATCH_SIZE, expected).pvalue > 1e-3, epoch
    assert [len(epoch) for epoch in shown] == [ITERATIONS * BATCH_SIZE] * EPOCHS


def test_the_course_is_that_of_the_options():
    options = Options(
        **{"epochs": 9, "iterations_per_epoch": 4, "sampler": "adaptive", "seed": 6},
        **{"background_schedule": "cosine", "background_keep": 0.3, "foreground_only_epochs": 2},
    )
    cases, kinds = SimpleNamespace(identifiers=["a"]), {"a": SliceKinds(5, (1, 2))}
    sampler = schedule_slices(cases, kinds, options, batch_size=2, first_epoch=0, rank=1, num_ranks=3).sampler
    assert sampler.background == BackgroundSchedule(9, "cosine", 0.3, 2)
    assert (len(sampler), sampler.size(), sampler.seed, sampler.rank) == (8, 24, 6, 1)


@pytest.mark.parametrize("sampler", ["uniform", "foreground", "adaptive"])
def test_processes_with_batches_of_different_sizes_share_one_order(sampler):
    options = Options(epochs=3, iterations_per_epoch=4, sampler=sampler, seed=6)
    cases, kinds = SimpleNamespace(identifiers=["a"]), {"a": SliceKinds(24, tuple(range(8)))}
    shown = []
    for rank, size in enumerate((3, 2)):  # as nnU-Net splits a batch of 5
        share = {"rank": rank, "num_ranks": 2, "global_batch_size": 5}
        slices = schedule_slices(cases, kinds, options, batch_size=size, first_epoch=0, **share)
        handed_out = [slices.next_slice() for _ in range(size + 4 * size + 1)][size:]
        assert [epoch for epoch, _, _ in handed_out] == [0] * 4 * size + [1]
        shown += [position for _, _, position in handed_out[:-1]]
    slices.sampler.set_epoch(1)
    order = slices.sampler.draw(slices.sampler._random())
    assert Counter(shown) <= Counter(order.tolist())
    assert len(shown) == 4 * 5


def test_without_the_sampler_all_epochs_are_alike(folders, shown):
    settings = [text for text in SETTINGS if not text.startswith("sampler")]
    folders.configure("2d_usual", *settings, "oversample_foreground=0")
    folders.trainer(CustomTrainer, "2d_usual").run_training()
    assert np.mean(shown[0]) == pytest.approx(1 / 3, abs=0.2)
    assert stats.binomtest(int(np.sum(shown)), ITERATIONS * BATCH_SIZE * EPOCHS, 1 / 3).pvalue > 1e-3


@pytest.fixture
def drawn(monkeypatch) -> list[tuple[int, str, int]]:
    """Epoch, case and number of each slice that is handed out."""
    slices: list[tuple[int, str, int]] = []
    original = ScheduledSlices.next_slice

    def note(dataset):
        slices.append(original(dataset))
        return slices[-1]

    monkeypatch.setattr(ScheduledSlices, "next_slice", note)
    return slices


def test_a_resumed_training_goes_on_with_the_same_slices(folders, shown, drawn):
    folders.configure("2d_adaptive", *SETTINGS, "seed=5")
    folders.trainer(CustomTrainer, "2d_adaptive").run_training()
    whole = drawn[BATCH_SIZE:]  # the first batch is made and thrown away by nnU-Net
    drawn.clear()
    second = folders.trainer(CustomTrainer, "2d_adaptive")
    second.current_epoch = 3  # as `load_checkpoint` leaves it
    for epoch in range(3):
        for key in ("train_losses", "val_losses", "ema_fg_dice"):
            second.logger.log(key, 0.0, epoch)
    second.on_train_start()
    for _ in range(ITERATIONS):
        next(second.dataloader_train)
    assert drawn[BATCH_SIZE:] == whole[3 * ITERATIONS * BATCH_SIZE : 4 * ITERATIONS * BATCH_SIZE]
    assert {epoch for epoch, _, _ in drawn} == {3}


def test_an_epoch_shows_each_slice_with_a_label_before_any_twice(folders, shown, drawn):
    folders.configure("2d_adaptive", *SETTINGS)
    folders.trainer(CustomTrainer, "2d_adaptive").run_training()
    first = Counter((case, position) for _, case, position in drawn[BATCH_SIZE : BATCH_SIZE + WITH_LABEL])
    assert len(first) == WITH_LABEL
    assert {position for _, position in first} == {1, 2, 3, 4}


def test_the_trainer_shows_the_slices_that_it_names(folders, drawn):
    """The label in the batch is that of the slice: what nnU-Net's own data set has there."""
    folders.configure("2d_adaptive", *SETTINGS)
    trainer = folders.trainer(CustomTrainer, "2d_adaptive")
    trainer.initialize()
    trainer.dataset_class = None
    loader, _ = trainer.get_dataloaders()
    dataset = loader.data_loader._data
    image, label, _, properties = dataset.load_case("any name")
    _, case, position = drawn[-1]
    whole_image, whole_label, _, whole = dataset.dataset.load_case(case)
    np.testing.assert_array_equal(image[:, 0], whole_image[:, position])
    np.testing.assert_array_equal(label[:, 0], whole_label[:, position])
    for value, voxels in properties["class_locations"].items():
        rows = np.asarray(whole["class_locations"][value]).reshape(-1, 4)
        np.testing.assert_array_equal(voxels[:, 2:], rows[rows[:, 1] == position][:, 2:])
        assert not voxels[:, 1].any()
    assert any(len(voxels) for voxels in properties["class_locations"].values())  # the first epoch


def test_the_preset_is_nnunets_network_with_the_sampler(folders):
    trainer = folders.trainer(nnUNetTrainerAdaptiveSampler)
    assert (trainer.options.network, trainer.options.sampler) == ("planned", "adaptive")
    trainer.initialize()
    loader, _ = trainer.get_dataloaders()
    assert isinstance(loader.data_loader._data, ScheduledSlices)
    batch = next(loader)
    assert trainer.train_step(batch)["loss"] < 10


def test_slices_of_a_3d_configuration_are_refused(folders):
    with pytest.raises(OptionError, match=r"adaptive needs a 2D configuration, .* 3 numbers; set sampler=nnunet"):
        folders.trainer(nnUNetTrainerAdaptiveSampler, "3d_fullres")


# the index of slices with foreground, and the order of slices


class Cases:
    """A data set of label maps as nnU-Net's; counts what is read."""

    def __init__(self, folder, **labels) -> None:
        self.source_folder, self.identifiers, self.labels = str(folder), sorted(labels), labels
        self.read: list[str] = []
        for file in (folder / f"{case}.pkl" for case in labels):
            file.exists() or file.write_bytes(b"properties")

    def load_case(self, case):
        self.read.append(case)
        return None, self.labels[case][None], None, {}


def label_map(*rows) -> np.ndarray:
    """Return slices of 1 x 3 pixels."""
    return np.array(rows, np.int16)[:, None]


LABELS = {"a": label_map([0, 0, 0], [0, 2, 0], [-1, -1, 0]), "b": label_map([9, 9, 9], [9, 0, 9], [1, 9, 9])}


def test_index_tells_foreground_from_background_outside_and_ignored(tmp_path):
    index = index_foreground(Cases(tmp_path, **LABELS), tmp_path / "index.json", ignore_label=9)
    assert index == {"a": SliceKinds(3, (1,), ()), "b": SliceKinds(3, (2,), (0,))}
    table = SliceTable(index)
    assert table.index == [("a", 0), ("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert table.has_foreground.tolist() == [False, True, False, False, True]


def test_index_is_read_from_its_file_the_second_time(tmp_path):
    first, second = (Cases(tmp_path, **LABELS) for _ in range(2))
    indices = [index_foreground(cases, tmp_path / "index.json") for cases in (first, second)]
    assert (sorted(first.read), second.read) == (["a", "b"], [])
    assert indices[0] == indices[1]


def test_only_cases_that_changed_or_are_new_are_read_again(tmp_path):
    index_foreground(Cases(tmp_path, **LABELS), tmp_path / "index.json")
    more = Cases(tmp_path, **LABELS, c=label_map([1, 1, 1]))
    (tmp_path / "a.pkl").write_bytes(b"preprocessed anew")
    index_foreground(more, tmp_path / "index.json")
    assert sorted(more.read) == ["a", "c"]
    assert json.loads((tmp_path / "index.json").read_text())["cases"].keys() == {"a", "b", "c"}


def test_another_ignore_label_reads_all_again(tmp_path):
    index_foreground(Cases(tmp_path, **LABELS), tmp_path / "index.json")
    again = Cases(tmp_path, **LABELS)
    assert index_foreground(again, tmp_path / "index.json", ignore_label=9)["b"].foreground == (2,)
    assert sorted(again.read) == ["a", "b"]


def test_an_index_that_cannot_be_kept_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    index = index_foreground(Cases(tmp_path, **LABELS), tmp_path / "file" / "index.json")
    assert index["a"].foreground == (1,)
    assert "cannot be kept" in caplog.text


def scheduled(tmp_path, num_samples=None, **options) -> ScheduledSlices:
    table = SliceTable({"a": SliceKinds(10, (4, 5, 6)), "b": SliceKinds(10, (2,))})
    sampler = make_sampler("adaptive", table, BackgroundSchedule(3), num_samples=num_samples)
    return ScheduledSlices(SimpleNamespace(identifiers=["a", "b"]), table, sampler, **options)


def test_slices_ahead_of_the_training_are_of_its_first_epoch(tmp_path):
    dataset = scheduled(tmp_path, num_samples=8, first_epoch=2, ahead=4)
    assert [dataset.next_slice()[0] for _ in range(4 + 8 + 1)] == [2] * 12 + [3]


def _take(dataset, count, queue) -> None:
    queue.put([dataset.next_slice() for _ in range(count)])


def test_processes_share_one_order(tmp_path):
    dataset, queue = scheduled(tmp_path, num_samples=40), multiprocessing.Queue()
    workers = [multiprocessing.Process(target=_take, args=(dataset, 40, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    taken = [one for _ in workers for one in queue.get(timeout=60)]
    for worker in workers:
        worker.join()
    alone = scheduled(tmp_path, num_samples=40)
    assert sorted(taken) == sorted(alone.next_slice() for _ in range(80))
