"""CRF around a network: refines its logits, and trains exactly what is asked for."""

import pytest
import torch

from nnunet_ext.networks import CRF, available, build_network, network_class
from nnunet_ext.networks.crf import CrfsegField, make_field
from nnunet_ext.networks.mean_field import MeanFieldCRF

BASES = [key for key in available() if key != "crf" and 2 in network_class(key).spatial_dims]
LAST = {
    "enet": "classifier.",
    "sam2unet": "heads.2.",
    "samed": "mask_decoder.output_hypernetworks_mlps.",
}


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def network(base: str, **options) -> CRF:
    small = getattr(network_class(base), "small_options", {})
    return CRF(1, 3, base=base, base_options=small, **options)


def step(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Make one large step of training, and return what stood in the state dict before."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    image = torch.randn(2, 1, 32, 32)
    model.train()(image).square().mean().backward()
    optimizer.step()
    return before


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("trainable", ["crf", "last"])
def test_exactly_the_parameters_asked_for_change_in_a_step_and_no_buffer(base, trainable):
    model = network(base, trainable=trainable, appearance_weight=0.5)
    before = step(model)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    of_crf = {f"crf.{name}" for name, _ in model.crf.named_parameters()}
    last = {name for name, _ in model.named_parameters() if name.startswith(f"base.{LAST[base]}")}
    wanted = of_crf | last if trainable == "last" else of_crf
    assert {name for name, p in model.named_parameters() if p.requires_grad} == wanted
    assert last
    assert len(of_crf) == 5
    assert changed == wanted


@pytest.mark.parametrize("base", BASES)
def test_nothing_but_the_last_layers_makes_the_logits(base):
    """With what is named set to zero, logits no longer depend on the image."""
    model = network(base).base.eval()
    for name in network_class(base).last_layers:
        for parameter in model.get_submodule(name).parameters():
            torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        logits = model(torch.randn(2, 1, 32, 32))
    assert (logits == 0).all()


@pytest.mark.parametrize("base", BASES)
def test_whole_base_trains_by_default_as_it_says_itself(base):
    small = getattr(network_class(base), "small_options", {})
    alone = build_network(base, 1, 3, **small)
    trains = {name for name, parameter in network(base).base.named_parameters() if parameter.requires_grad}
    assert trains == {name for name, parameter in alone.named_parameters() if parameter.requires_grad}


def test_logits_are_those_of_the_base_refined_with_its_input_and_spacing():
    model = network("enet", appearance_weight=0.7, spacing_mm=(2.0, 0.5)).eval()
    image = torch.randn(2, 1, 32, 40)
    with torch.no_grad():
        expected = model.crf(model.base(image), image, (2.0, 0.5))
        assert torch.equal(model(image), expected)
        assert not torch.allclose(model.crf(model.base(image), image), expected)


def test_weights_of_the_base_alone_can_be_loaded_and_others_are_refused():
    trained = build_network("enet", 1, 3)
    model = network("enet", smoothness_weight=0.0)
    model.load_base(trained.state_dict())
    image = torch.randn(1, 1, 32, 32)
    assert torch.equal(model.eval()(image), trained.eval()(image))
    with pytest.raises(ValueError, match="don't fit the base network"):
        model.load_base(build_network("enet", 1, 4).state_dict())


def test_file_of_the_base_is_loaded_and_what_is_no_state_dict_is_refused(tmp_path):
    model, trained, file = network("enet"), build_network("enet", 1, 3), tmp_path / "model_best.pt"
    torch.save({"network": trained.state_dict(), "epoch": 3}, file)
    model.load_pretrained(file)
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in model.base.state_dict().items())
    for content in (torch.zeros(3), [1], 5, {}, {1: torch.zeros(2)}):
        torch.save(content, file)
        with pytest.raises(ValueError, match=r"model_best\.pt: "):
            model.load_pretrained(file)


def test_of_several_outputs_the_finest_is_refined():
    options = {**network_class("sam2unet").small_options, "deep_supervision": True}
    model = CRF(1, 3, base="sam2unet", base_options=options).eval()
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        outputs, own = model(image), model.base(image)
        assert torch.equal(outputs[0], model.crf(own[0], image))
    assert all(torch.equal(one, other) for one, other in zip(outputs[1:], own[1:], strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "crf"}, "base must be another network than 'crf'"),
        ({"base": "unet"}, "network must be one of"),
        ({"kind": "dense"}, "kind must be one of exact, crfseg, got 'dense'"),
        ({"kind": "crfseg", "appearance_weight": 1.0}, "kind=crfseg has no appearance_weight; take kind=exact"),
        ({"trainable": "head"}, "trainable must be one of all, crf, last, got 'head'"),
    ],
)
def test_wrong_option_is_an_error_that_names_it(options, message):
    with pytest.raises(ValueError, match=message):
        CRF(1, 2, **options)


def test_a_base_that_names_no_last_layer_can_train_its_crf_only(monkeypatch):
    monkeypatch.delattr(network_class("enet"), "last_layers")
    CRF(1, 2, trainable="crf")
    with pytest.raises(ValueError, match="names its last_layers, got enet; take crf or all"):
        CRF(1, 2, trainable="last")


def test_crfseg_that_is_not_installed_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "crfseg", None)
    with pytest.raises(ImportError, match="pip install crfseg, or take kind=exact"):
        CrfsegField(2)


@pytest.mark.parametrize("dims", [2, 3])
def test_crfseg_gives_its_own_logits_which_are_not_the_exact_ones(dims):
    crfseg = pytest.importorskip("crfseg", reason="needs crfseg (pip install -e '.[dev]')")
    logits = torch.randn(2, 3, *(8, 9, 7)[:dims])
    ours, theirs = make_field("crfseg", dims, {"iterations": 2, "smoothness_mm": 1.5}), crfseg.CRF(dims, n_iter=2)
    theirs.load_state_dict(ours.layer.state_dict())
    assert torch.equal(ours(logits, spacing_mm=(2.0,) * dims), theirs(logits, torch.full((2, dims), 2.0)))
    assert not torch.allclose(ours(logits), MeanFieldCRF(dims, iterations=2, smoothness_mm=1.5)(logits))


def test_crfseg_gives_direct_neighbours_weight_0_and_ours_the_largest():
    pytest.importorskip("crfseg", reason="needs crfseg (pip install -e '.[dev]')")
    logits = torch.zeros(1, 2, 7, 7)
    logits[0, 1, 3, 3] = 20
    gain = {}
    for kind in ("exact", "crfseg"):
        refined = make_field(kind, 2, {"iterations": 1})(logits)
        difference = (refined[0, 1] - refined[0, 0]).detach()
        gain[kind] = difference[3, 4].item(), difference[4, 4].item()  # beside the sure voxel, and diagonally
    assert gain["crfseg"][0] == pytest.approx(0, abs=1e-6)
    assert gain["crfseg"][1] > 0.3
    assert gain["exact"][0] > gain["exact"][1] > 0


@pytest.mark.parametrize("kind", ["exact", "crfseg"])
def test_network_refines_by_the_layer_of_its_kind_and_no_other(kind):
    package = pytest.importorskip("crfseg", reason="needs crfseg (pip install -e '.[dev]')")
    model = network("enet", kind=kind, iterations=2, smoothness_weight=2.0, smoothness_mm=1.5, smoothness_window=5)
    theirs = package.CRF(2, n_iter=2, smoothness_weight=2.0, smoothness_theta=1.5, filter_size=5)
    image = torch.randn(1, 1, 32, 40)
    with torch.no_grad():
        same = torch.allclose(model.eval()(image), theirs(model.base(image)))
    assert same == (kind == "crfseg")
