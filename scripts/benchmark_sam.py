"""Time SAMed and SAM2-UNet against their stock modules with the same adapters, and print the ratios.

Peers: for SAMed the same network with `segment_anything`'s attention, which holds the whole (tokens x tokens) matrix;
for SAM2-UNet a plain composition of its published modules. Each measurement runs in a process of its own; ours and
the peer take turns. `step` is forward, loss, backward and optimiser; `encoder` the image encoder's forward and
backward; `inference` a forward without gradient. Memory is the highest of the process (on a GPU: of its tensors).
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

NETWORKS = ("samed", "sam2unet")
PARTS = ("encoder", "step", "inference")
CLASSES = 5


def stock_attention(network: Any) -> nn.Module:
    """Give a SAMed the attention of `segment_anything`, with its weights and updates.

    Args:
        network: The network, changed in place.
    """
    from segment_anything.modeling.image_encoder import add_decomposed_rel_pos

    class StockAttention(nn.Module):
        def __init__(self, ours: Any) -> None:
            super().__init__()
            self.qkv, self.proj, self.num_heads = ours.qkv, ours.proj, ours.num_heads
            self.rel_pos_h, self.rel_pos_w = ours.rel_pos_h, ours.rel_pos_w

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batch, height, width, _ = x.shape
            fused = torch.cat(self.qkv(x), dim=-1)
            parts = fused.reshape(batch, height * width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
            q, k, v = parts.reshape(3, batch * self.num_heads, height * width, -1).unbind(0)
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            size = (height, width)
            scores = add_decomposed_rel_pos(scores, q, self.rel_pos_h, self.rel_pos_w, size, size)
            attended = (scores.softmax(dim=-1) @ v).view(batch, self.num_heads, height, width, -1)
            return self.proj(attended.permute(0, 2, 3, 1, 4).reshape(batch, height, width, -1))

    for block in network.image_encoder.blocks:
        block.window_size = block.attn.size[0] if block.attn.windowed else 0
        block.attn = StockAttention(block.attn)
    return network


def build(network: str, side: str, variant: str, size: int) -> tuple[Any, Callable, Callable]:
    """Build one side of a comparison.

    Args:
        network: One of `NETWORKS`.
        side: "ours" or "peer".
        variant: Size of the encoder.
        size: Side of the images in pixels.

    Returns:
        Network, its encoder, and what makes one tensor to optimise of the network's output.
    """
    torch.manual_seed(0)
    if network == "samed":
        from sam_lora import SAMed

        ours: Any = SAMed(3, CLASSES, variant=variant, image_size=size)
        model: Any = ours if side == "ours" else stock_attention(ours)
        return model, model.image_encoder, lambda out: out
    from sam_lora import SAM2UNet
    from sam_lora.hiera import hiera_config
    from sam_lora.variants import HIERA_VARIANTS

    if side == "ours":
        model = SAM2UNet(3, CLASSES, variant=variant, image_size=size, deep_supervision=True)
        return model, model.encoder, lambda out: sum(part for part in out)
    from published_sam2unet import PublishedSam2Unet
    from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModel

    config = HIERA_VARIANTS[variant]
    peer = PublishedSam2Unet(Sam2HieraDetModel(hiera_config(config)).requires_grad_(False), CLASSES, config.dims)
    return peer, peer.encoder, lambda out: sum(part for part in out)


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Measure one part of one side in this process.

    Args:
        args: Command line.

    Returns:
        "seconds" (fastest of the repeats) and "peak_mb".
    """
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    model, encoder, joined = build(args.network, args.side, args.variant, args.size)
    model.to(device).train(args.part != "inference")
    x = torch.randn(args.batch, 3, args.size, args.size, device=device)
    target = torch.randint(0, CLASSES, (args.batch, args.size, args.size), device=device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def once() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            if args.part == "inference":
                with torch.inference_mode():
                    model(x)
                return
            output = encoder(x) if args.part == "encoder" else joined(model(x))
        if args.part == "encoder":
            parts = output if isinstance(output, list) else [output]
            loss = sum(part.float().square().mean() for part in parts)
        else:
            loss = nn.functional.cross_entropy(output.float(), target)
        loss.backward()
        if args.part == "step":
            optimizer.step()
        optimizer.zero_grad()

    seconds = []
    for _ in range(args.repeats + 1):
        start = time.perf_counter()
        once()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"seconds": min(seconds[1:]), "peak_mb": peak}


def compare(args: argparse.Namespace) -> None:
    """Measure all parts at all sizes, ours and the peer in turn, and print a Markdown table.

    Args:
        args: Command line.
    """
    place = torch.cuda.get_device_name() if args.device == "cuda" else f"{platform.machine()}, {args.threads} threads"
    kind = "bf16" if args.bf16 else "float32"
    print(f"torch {torch.__version__}, {place}, {kind}, {args.network} {args.variant}, batch {args.batch}\n")
    print("| size | part | peer s | ours s | faster by | peer MB | ours MB | memory |")
    print("|---|---|---|---|---|---|---|---|")
    for size in args.sizes:
        for part in args.parts:
            results: dict[str, dict[str, float]] = {}
            for side in ("peer", "ours"):
                words = ["--network", args.network, "--variant", args.variant, "--device", args.device]
                words += ["--batch", args.batch, "--repeats", args.repeats, "--threads", args.threads]
                words += ["--side", side, "--size", size, "--part", part, *(["--bf16"] if args.bf16 else [])]
                command = [sys.executable, __file__, *map(str, words)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(done.stderr)
                results[side] = json.loads(done.stdout.splitlines()[-1])
            peer, ours = results["peer"], results["ours"]
            print(
                f"| {size} | {part} | {peer['seconds']:.3f} | {ours['seconds']:.3f} "
                f"| {peer['seconds'] / ours['seconds']:.2f}x | {peer['peak_mb']:.0f} | {ours['peak_mb']:.0f} "
                f"| {ours['peak_mb'] / peer['peak_mb']:.2f}x |",
                flush=True,
            )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="samed")
    parser.add_argument("--variant", help="size of the encoder (default: vit_b, tiny)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024], help="sides of the images in pixels")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="timed after one that warms up; the fastest counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    for name in ("--side", "--size", "--part"):
        parser.add_argument(name, type=int if name == "--size" else str, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.variant = args.variant or {"samed": "vit_b", "sam2unet": "tiny"}[args.network]
    if args.side:
        print(json.dumps(measure(args)))
    else:
        compare(args)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
