"""Mean-field CRF: equal to a loop over all pairs of voxels, differentiable, safe in half precision, small in memory."""

import itertools
import math
import threading
import time

import psutil
import pytest
import torch

from nnunet_ext.networks import field_kernels
from nnunet_ext.networks.mean_field import MeanFieldCRF

SIZES = {2: (5, 7), 3: (4, 3, 5)}
SPACINGS = {2: (0.7, 1.9), 3: (3.0, 0.8, 1.2)}
BANDWIDTHS = {2: (1.1, 2.3), 3: (2.5, 0.9, 1.4)}
in_each_dimension = pytest.mark.parametrize("dims", [2, 3])
both_terms = {"smoothness_weight": 1.5, "appearance_weight": 2.0, "appearance_window": 3}


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def field(dims: int, **options) -> MeanFieldCRF:
    return MeanFieldCRF(dims, **{"smoothness_mm": BANDWIDTHS[dims], "smoothness_window": 5, **options})


def brute_force(logits, image, spacing, crf, **given):
    """Mean field of one sample (K, *S), voxel by voxel and neighbour by neighbour, in plain Python numbers."""
    size = logits.shape[1:]
    voxels = list(itertools.product(*map(range, size)))

    def gaussian(offset, bandwidths):
        return math.exp(-0.5 * sum((o * s / b) ** 2 for o, s, b in zip(offset, spacing, bandwidths, strict=True)))

    terms = []
    for name in ("smoothness", "appearance"):
        if given.get(f"{name}_weight"):
            radius = given[f"{name}_window"] // 2
            window = list(itertools.product(range(-radius, radius + 1), repeat=len(size)))
            bandwidths = given[f"{name}_mm"]
            total = sum(gaussian(offset, bandwidths) for offset in window)
            terms.append((given[f"{name}_weight"], radius, bandwidths, total, name == "appearance"))

    refined = logits.clone()
    for _ in range(crf.iterations):
        belief = refined.softmax(0)
        updated = logits.clone()
        for i, j in itertools.permutations(voxels, 2):
            offset = [b - a for a, b in zip(i, j, strict=True)]
            for weight, radius, bandwidths, total, guided in terms:
                if max(map(abs, offset)) > radius:
                    continue
                kernel = gaussian(offset, bandwidths) / total
                if guided:
                    apart = (image[(slice(None), *i)] - image[(slice(None), *j)]) / given["appearance_intensity"]
                    kernel *= math.exp(-0.5 * float(apart.square().sum()))
                updated[(slice(None), *i)] += weight * kernel * belief[(slice(None), *j)]
        refined = updated
    return refined


@in_each_dimension
@pytest.mark.parametrize("terms", [(1.5, 0.0), (0.0, 2.0), (1.5, 2.0)], ids=["smooth", "appearance", "both"])
def test_equals_a_loop_over_all_pairs_with_another_spacing_in_each_sample(dims, terms):
    given = {
        **{"smoothness_weight": terms[0], "smoothness_mm": BANDWIDTHS[dims], "smoothness_window": 5},
        **{"appearance_weight": terms[1], "appearance_mm": BANDWIDTHS[dims][::-1], "appearance_window": 3},
        "appearance_intensity": 0.8,
    }
    crf = MeanFieldCRF(dims, iterations=3, **given)
    logits = 2 * torch.randn(2, 3, *SIZES[dims], dtype=torch.float64)
    image = torch.randn(2, 2, *SIZES[dims], dtype=torch.float64)
    spacings = torch.tensor([SPACINGS[dims], SPACINGS[dims][::-1]], dtype=torch.float64)
    refined = crf(logits, image, spacings)
    single = crf(logits.float(), image.float(), spacings)
    for sample, spacing in enumerate(spacings.tolist()):
        expected = brute_force(logits[sample], image[sample], spacing, crf, **given)
        assert (refined[sample] - expected).abs().max() < 1e-6  # its parameters are float32
        assert (single[sample] - expected).abs().max() < 1e-5
    assert (refined - logits).abs().max() > 0.1


def test_long_axes_give_the_convolution_with_the_window():
    """Longer than the blocks in which an axis is worked on."""
    logits = torch.randn(2, 3, 75, 41)
    crf = MeanFieldCRF(2, iterations=1, smoothness_weight=1.0, smoothness_mm=(2.0, 3.0), smoothness_window=9)
    rows, columns = (torch.exp(-0.5 * (torch.arange(-4.0, 5.0) / theta) ** 2) for theta in (2.0, 3.0))
    window = rows[:, None] * columns / (rows.sum() * columns.sum())
    window[4, 4] = 0
    belief = logits.softmax(1).flatten(0, 1)[:, None]
    messages = torch.nn.functional.conv2d(belief, window[None, None], padding=4).reshape(logits.shape)
    torch.testing.assert_close(crf(logits), logits + messages)


@pytest.mark.parametrize("spacing", [None, torch.tensor([[1.0, 2.0, 0.5], [3.0, 1.0, 1.0]])], ids=["one", "each"])
def test_channels_in_turn_and_without_gradient_give_the_same_logits(spacing, monkeypatch):
    crf = field(3, **both_terms)
    logits, image = torch.randn(2, 3, *SIZES[3]), torch.randn(2, 1, *SIZES[3])
    expected, before = crf(logits, image, spacing).detach(), logits.clone()
    monkeypatch.setattr(field_kernels, "_VOXELS", 2 * math.prod(SIZES[3]))  # two channels at once
    torch.testing.assert_close(crf(logits, image, spacing).detach(), expected)
    with torch.no_grad():
        torch.testing.assert_close(crf(logits, image, spacing), expected)
        torch.testing.assert_close(crf(logits.movedim(1, -1).contiguous().movedim(-1, 1), image, spacing), expected)
    assert torch.equal(logits, before)


@in_each_dimension
@pytest.mark.parametrize("terms", [(1.5, 0.0), (0.0, 2.0), (1.5, 2.0)], ids=["smooth", "appearance", "both"])
def test_order_of_the_axes_in_memory_changes_nothing(dims, terms):
    """Such as arrays in Fortran's order: predictions without gradient reuse memory."""
    crf = field(dims, smoothness_weight=terms[0], appearance_weight=terms[1], appearance_window=3)
    logits, image = torch.randn(2, 3, *SIZES[dims]), torch.randn(2, 1, *SIZES[dims])
    turned = logits.transpose(-1, -2).contiguous().transpose(-1, -2)
    with torch.no_grad():
        assert torch.equal(crf(turned, image), crf(logits, image))


def test_direct_neighbours_weigh_more_than_diagonal_ones():
    logits = torch.zeros(1, 2, 5, 5)
    logits[0, 1, 2, 2] = 20  # the centre is sure of class 1, all others undecided
    refined = field(2, iterations=1, smoothness_mm=1.0)(logits)
    gain = (refined[0, 1] - refined[0, 0])[1:4, 1:4]
    centre, side, corner = gain[1, 1].item(), gain[0, 1].item(), gain[0, 0].item()
    # of the sure voxel they get exp(-1/2) = 0.607 and exp(-1) = 0.368 of the same unit
    assert corner / side == pytest.approx(0.368 / 0.607, rel=1e-2)
    assert centre == pytest.approx(20)


@in_each_dimension
def test_one_voxel_of_noise_is_removed_and_an_edge_in_the_image_is_kept(dims):
    label = torch.zeros(9, 9, 9)[(0,) * (3 - dims)]
    label[..., 5:] = 1
    logits = torch.stack([1 - 2 * label, 2 * label - 1])[None].clone()
    hole = (4,) * (dims - 1) + (2,)
    logits[(0, slice(None), *hole)] = torch.tensor([-1.0, 1.0])
    image = 4 * label[None, None]
    crf = MeanFieldCRF(dims, smoothness_weight=0.0, appearance_weight=6.0, appearance_mm=3.0)
    assert torch.equal(crf(logits, image).argmax(1)[0], label.long())


def test_message_of_a_term_is_at_most_its_weight():
    logits = torch.randn(1, 4, 20, 20)
    crf = MeanFieldCRF(2, smoothness_weight=2.0, smoothness_mm=3.0, smoothness_window=21)
    added = crf(logits) - logits
    assert added.min() >= 0
    assert added.max() <= 2.0


@in_each_dimension
def test_appearance_term_of_a_constant_image_is_the_smoothness_term(dims):
    logits = torch.randn(2, 3, *SIZES[dims])
    shared = {"iterations": 3, "smoothness_window": 5}
    smooth = MeanFieldCRF(dims, **shared, smoothness_weight=1.7, smoothness_mm=1.3)
    guided = MeanFieldCRF(dims, iterations=3, smoothness_weight=0, appearance_weight=1.7, appearance_mm=1.3)
    constant = torch.full((2, 1, *SIZES[dims]), 7.0)
    torch.testing.assert_close(guided(logits, constant, SPACINGS[dims]), smooth(logits, None, SPACINGS[dims]))


@in_each_dimension
def test_gradients_are_those_of_finite_differences(dims):
    size = {2: (3, 3), 3: (2, 2, 3)}[dims]
    crf = field(dims, iterations=2, **both_terms).double()
    logits = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    image = torch.randn(2, 1, *size, dtype=torch.float64, requires_grad=True)
    spacing = torch.tensor([SPACINGS[dims], SPACINGS[dims][::-1]], dtype=torch.float64)
    names, values = zip(*crf.named_parameters(), strict=True)

    def refine(logits, image, *parameters):
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(crf, state, (logits, image, spacing))

    assert len(values) == 5
    assert torch.autograd.gradcheck(refine, (logits, image, *values), fast_mode=dims == 3)


@in_each_dimension
def test_without_terms_and_at_weight_zero_logits_come_back_unchanged(dims):
    logits, image = torch.randn(2, 3, *SIZES[dims]), torch.randn(2, 1, *SIZES[dims])
    crf = MeanFieldCRF(dims, smoothness_weight=0.0)
    assert list(crf.parameters()) == []
    assert torch.equal(crf(logits), logits)
    assert crf(logits).data_ptr() != logits.data_ptr(), "nnU-Net adds into what it gets"
    crf = field(dims, **both_terms)
    with torch.no_grad():
        for term in (crf.smoothness, crf.appearance):
            term.raw_weight.fill_(-200)  # softplus rounds to 0
    assert torch.equal(crf(logits, image), logits)


def test_initial_values_are_those_asked_for():
    crf = MeanFieldCRF(
        3, smoothness_weight=0.01, smoothness_mm=(4, 1, 0.5), appearance_weight=30.0, appearance_intensity=0.2
    )
    assert crf.smoothness.weight().item() == pytest.approx(0.01, rel=1e-5)
    assert crf.smoothness.bandwidths_mm().tolist() == pytest.approx([4, 1, 0.5], rel=1e-5)
    assert crf.appearance.weight().item() == pytest.approx(30)
    assert crf.appearance.intensity_bandwidth().item() == pytest.approx(0.2, rel=1e-5)


def test_weights_stay_positive_and_bandwidths_above_zero_however_far_the_optimiser_goes():
    crf = field(2, **both_terms)
    optimizer = torch.optim.SGD(crf.parameters(), lr=100.0)
    logits, image = torch.randn(2, 3, 6, 6), torch.randn(2, 1, 6, 6)
    for sign in (1, -1, 1, 1, -1, -1, -1, 1):
        optimizer.zero_grad()
        (sign * crf(logits, image).square().mean()).backward()
        optimizer.step()
        for term in (crf.smoothness, crf.appearance):
            assert term.weight() >= 0
            assert (term.bandwidths_mm() >= 0.05).all()
        assert crf.appearance.intensity_bandwidth() >= 0.05
        assert crf(logits, image).isfinite().all()


def test_training_finds_the_weight_that_the_data_ask_for():
    truth = torch.zeros(1, 16, 16, dtype=torch.long)
    truth[:, 4:12, 4:12] = 1
    noisy = torch.nn.functional.one_hot(truth, 2).movedim(-1, 1) + 0.8 * torch.randn(1, 2, 16, 16)
    crf = MeanFieldCRF(2, smoothness_weight=0.1)
    optimizer = torch.optim.Adam(crf.parameters(), lr=0.3)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(crf(noisy), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert crf.smoothness.weight() > 1
    assert (crf(noisy).argmax(1) != truth).sum() < 0.5 * (noisy.argmax(1) != truth).sum()


@in_each_dimension
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_full_precision(dims, dtype):
    crf = field(dims, **both_terms)
    logits, image = 3 * torch.randn(2, 3, *SIZES[dims]), torch.randn(2, 1, *SIZES[dims])
    full = crf(logits, image)
    with torch.autocast("cpu", dtype):
        assert torch.equal(crf(logits, image), full), "under autocast it goes on in float32"
        half = crf(logits.to(dtype), image.to(dtype))
    assert half.dtype == dtype
    assert half.isfinite().all()
    assert (half.float() - full).abs().max() < 0.1


@pytest.mark.parametrize("value", [6000.0, 60000.0, -60000.0])
def test_huge_logits_and_intensities_give_finite_logits_and_gradients(value):
    crf = field(2, **both_terms)
    logits = torch.zeros(1, 3, 6, 6, dtype=torch.float16)
    logits[:, 0, :3] = value
    image = torch.where(torch.rand(1, 1, 6, 6) > 0.5, value, -value)
    logits.requires_grad_()
    refined = crf(logits, image)
    refined.float().mean().backward()
    assert refined.isfinite().all()
    assert all(tensor.grad.isfinite().all() for tensor in (logits, *crf.parameters()))


def test_far_voxels_carry_no_message():
    logits = torch.randn(1, 3, 6, 6)
    refined = field(2, smoothness_mm=1.0)(logits, None, (1000.0, 1000.0))
    torch.testing.assert_close(refined, logits)


def test_ties_stay_ties():
    refined = field(2)(torch.zeros(1, 4, 6, 7))
    assert (refined == refined[:, :1]).all()


def test_samples_of_a_batch_do_not_depend_on_each_other():
    crf = field(3, **both_terms)
    logits, image = torch.randn(3, 2, *SIZES[3]), torch.randn(3, 1, *SIZES[3])
    spacings = torch.tensor([[1.0, 1.0, 1.0], [5.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
    together = crf(logits, image, spacings)
    for sample in range(3):
        own = slice(sample, sample + 1)
        torch.testing.assert_close(crf(logits[own], image[own], spacings[own]), together[own])
    assert not torch.allclose(crf(logits, image), together)


def test_regions_are_fields_of_their_own():
    logits = torch.randn(2, 3, 6, 7)
    regions = field(2, regions=True)
    together = regions(logits)
    for channel in range(3):
        alone = logits[:, channel : channel + 1]
        torch.testing.assert_close(together[:, channel : channel + 1], regions(alone))
        pair = torch.cat([alone, torch.zeros_like(alone)], dim=1)  # the same field as two classes
        of_classes = field(2)(pair)
        torch.testing.assert_close(of_classes[:, :1] - of_classes[:, 1:], regions(alone))


def test_one_voxel_thick_volumes_and_windows_wider_than_the_image_work():
    crf = MeanFieldCRF(3, smoothness_window=21, appearance_weight=1.0, appearance_window=7)
    assert crf(torch.randn(1, 2, 1, 2, 3), torch.randn(1, 1, 1, 2, 3)).isfinite().all()


@pytest.mark.parametrize("terms", [{}, both_terms], ids=["smooth", "both"])
def test_export_gives_equal_logits(terms):
    crf = field(2, **terms).eval()
    example = torch.randn(2, 3, 8, 9), torch.randn(2, 1, 8, 9)
    with torch.no_grad():
        exported = torch.export.export(crf, example).module()
        traced = torch.jit.trace(crf, example)
        torch.testing.assert_close(exported(*example), crf(*example))
        torch.testing.assert_close(traced(*example), crf(*example))


class PeakMemory:
    """Highest growth of this process's memory in MB while the block runs, looked at every millisecond."""

    def __enter__(self):
        self.process, self.done = psutil.Process(), threading.Event()
        self.start = self.peak = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self):
        while not self.done.is_set():
            self.peak = max(self.peak, self.process.memory_info().rss)
            time.sleep(0.001)

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        self.growth_mb = (self.peak - self.start) / 2**20


def test_memory_of_a_step_in_3d_is_a_few_copies_of_the_probabilities():
    """64^3 voxels x 5 classes are 5.2 MB; a copy for each of 124 neighbours would be 650 MB."""
    crf = MeanFieldCRF(3, iterations=1, appearance_weight=1.0)
    crf(torch.randn(1, 2, 4, 4, 4), torch.randn(1, 1, 4, 4, 4)).mean().backward()  # loads what torch loads late
    logits = torch.randn(1, 5, 64, 64, 64, requires_grad=True)
    image = torch.randn(1, 1, 64, 64, 64)
    with PeakMemory() as memory:
        crf(logits, image).mean().backward()
    assert memory.growth_mb < 400  # about 240, much of it the allocator's


def test_memory_of_a_prediction_in_3d_is_one_copy_of_the_logits_and_little_more():
    crf = MeanFieldCRF(3)
    logits = torch.randn(1, 5, 96, 96, 96)
    with torch.no_grad():
        crf(logits[..., :8, :8, :8])  # loads what torch loads late
        with PeakMemory() as memory:
            crf(logits)
    assert memory.growth_mb < 1.9 * logits.nbytes / 2**20  # about 1.4; new memory at each update took 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 4}, "spatial_dims must be 2 or 3, got 4"),
        ({"iterations": 0}, "iterations must be an integer >= 1, got 0"),
        ({"iterations": 2.5}, "iterations must be an integer >= 1, got 2.5"),
        ({"smoothness_window": 5.5}, "smoothness_window must be an odd number of voxels >= 3, got 5.5; take 5"),
        ({"smoothness_weight": -1.0}, "smoothness_weight must be a number >= 0, got -1"),
        ({"appearance_weight": float("nan")}, "appearance_weight must be a number >= 0, got nan"),
        ({"smoothness_window": 4}, "smoothness_window must be an odd number of voxels >= 3, got 4; take 5"),
        ({"smoothness_mm": (1.0, 2.0, 3.0)}, "smoothness_mm must be one number or 2, each > 0.05, got"),
        ({"appearance_weight": 1.0, "appearance_intensity": 0.0}, "appearance_intensity must be a number > 0.05"),
    ],
)
def test_wrong_option_is_an_error_that_names_it(options, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        MeanFieldCRF(**{"spatial_dims": 2, **options})


@pytest.mark.parametrize(
    ("logits", "image", "spacing", "message"),
    [
        ((1, 2, 4), None, None, r"logits must have 4 axes \(B, K, \*S\), got shape \(1, 2, 4\)"),
        ((1, 2, 4, 4), None, None, "image must be given for the appearance term"),
        ((1, 2, 4, 4), (1, 1, 4, 5), None, r"got \(1, 1, 4, 5\) for logits of \(1, 2, 4, 4\)"),
        ((2, 2, 4, 4), (2, 1, 4, 4), torch.ones(3, 2), r"shape \(2,\) or \(2, 2\), got \(3, 2\)"),
        ((1, 2, 4, 4), (1, 1, 4, 4), (1.0, 0.0), "spacing_mm must be finite and > 0"),
    ],
)
def test_wrong_input_is_an_error_that_names_it(logits, image, spacing, message):
    crf = MeanFieldCRF(2, appearance_weight=1.0)
    with pytest.raises(ValueError, match=message):
        crf(torch.zeros(logits), torch.zeros(image) if image else None, spacing)
