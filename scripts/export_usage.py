"""What the documentation of an exported bundle says of its use."""

from nnunet_ext.bundle import ModelCard

_FETCH = """

## First: the frozen weights

`models/adapter` holds what was trained. The weights that it was trained on are not in the archive; fetch them once:

    python -m monai.bundle download_large_files --bundle_path ROOT

A file that lies elsewhere is named by `--pretrained FILE`. Either is compared with the SHA-256 in
`models/adapter/base.json` before it is used.
"""

_USAGE = """

## Using this copy

The archive holds everything but the packages of `required_packages_version` in `configs/metadata.json`; the code lies
in `{package}/`. From any folder, with `ROOT` the unzipped folder `{name}`:

    python -m monai.bundle run --config_file ROOT/configs/inference.json --images_dir IMAGES --output_dir PREDICTIONS

`IMAGES` holds `<case>_0000.nii.gz`, one file a channel. Here the default of `ckpt_dir` in `inference.json` is
`ROOT/models/{weights}`, whatever runs lie around. `"bundle_root": "."` stands for the folder of this copy, from any
working directory; `--bundle_root` names another one. Commands other than `run` have to be told where the code is:

    export PYTHONPATH=ROOT
    python -m monai.bundle verify_net_in_out --net_id network_def --config_file ROOT/configs/inference.json \\
        --meta_file ROOT/configs/metadata.json
    python -m monai.bundle ckpt_export --net_id network_def --config_file ROOT/configs/inference.json \\
        --meta_file ROOT/configs/metadata.json --ckpt_file ROOT/models/model.pt --filepath model.ts

A network that TorchScript can't script is traced instead, for one size and number of images:
`--use_trace True --input_shape "{shape}"`.
"""

_WHOLE = """
`ckpt_export` and other programs want the whole model in one file. In Python, with `PYTHONPATH` as above:

    import torch
    from monai.bundle import ConfigParser
    from {package}.nnunet_ext.bundle import load_checkpoint

    parser = ConfigParser()
    parser.read_config("ROOT/configs/inference.json")
    network = parser.get_parsed_content("network_def")
    load_checkpoint(network, "ROOT/models/adapter", bundle_root="ROOT")
    torch.save(network.state_dict(), "ROOT/models/model.pt")
"""


def usage(name: str, package: str, weights: str, card: ModelCard) -> str:
    """Return the sections that follow the bundle's own documentation.

    Args:
        name: Name of the exported bundle.
        package: Name of the vendored package.
        weights: What the weights are called in `models`; a folder is an adapter, whose frozen weights are fetched.
        card: Description of the model.
    """
    linked = weights != "model.pt"
    shape = [1, card.num_channels, *card.image_size]
    text = (_FETCH if linked else "") + _USAGE + (_WHOLE if linked else "")
    return text.format(name=name, package=package, weights=weights, shape=shape)
