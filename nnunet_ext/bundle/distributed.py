"""Several processes train one network, each on its share of the slices."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def join_process_group(backend: str, device: torch.device) -> None:
    """Join the processes that torchrun started.

    Args:
        backend: "nccl" for GPUs, "gloo" for CPUs.
        device: This process's device.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend=backend)


def distribute(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to its device and wrap it so that gradients are averaged over all processes.

    Args:
        network: The network, equally initialised everywhere or not: rank 0's weights win.
        device: This process's device; on GPUs batch normalisation is synchronised too (gloo cannot).

    Returns:
        The wrapped network.
    """
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return DistributedDataParallel(network.to(device), device_ids=[device])
    return DistributedDataParallel(network.to(device))
