"""The peer of `callosity-train bench`: the same network and batch, trained by PyTorch.

Reads the network as `callosity-train bench RECIPE --describe` prints it from standard input, builds it
from torch.nn modules, and prints the images a second of the median step: bfloat16 autocast and
channels-last where the CPU has AMX or AVX-512 BF16 (or on a GPU), else float32; AdamW, cross-entropy.
"""

import argparse
import json
import statistics
import sys
import time

import torch
from torch import nn


class Graph(nn.Module):
    def __init__(self, nodes):
        super().__init__()
        self.nodes = nodes
        self.ops = nn.ModuleList(self.module(node) for node in nodes)

    def module(self, node):
        op, channels = node["op"], node["shape"]["channels"]
        name, options = (op, {}) if isinstance(op, str) else next(iter(op.items()))
        inputs = self.nodes[node["inputs"][0]]["shape"]["channels"] if node["inputs"] else 0
        if name == "conv":
            kernel = options["kernel"]
            return nn.Conv2d(
                inputs, channels, kernel, options["stride"], kernel // 2, bias=options["bias"]
            )
        if name == "batch_norm":
            flat = node["shape"]["flat"]
            return nn.BatchNorm1d(channels) if flat else nn.BatchNorm2d(channels)
        if name == "leaky_relu":
            return nn.LeakyReLU(options["slope"], inplace=True)
        if name == "max_pool":
            return nn.MaxPool2d(options["size"])
        if name == "upsample":
            return nn.Upsample(scale_factor=options["factor"])
        if name == "dropout":
            return nn.Dropout(options["p"])
        if name == "linear":
            return nn.Linear(inputs, channels)
        return nn.Identity()

    def forward(self, x):
        values = []
        for node, op in zip(self.nodes, self.ops):
            inputs = [values[i] for i in node["inputs"]]
            if node["op"] == "input":
                value = x
            elif node["op"] == "add":
                value = inputs[0] + inputs[1]
            elif node["op"] == "concat":
                value = torch.cat(inputs, 1)
            elif node["op"] == "global_average_pool":
                value = inputs[0].mean((2, 3))
            else:
                value = op(inputs[0])
            values.append(value)
        return values[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    declared = json.load(sys.stdin)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    flags = set(open("/proc/cpuinfo").read().split())
    fast = device == "cuda" or bool(flags & {"amx_bf16", "avx512_bf16"})
    network = Graph(declared["nodes"]).to(device)
    shape = (declared["batch"], 3, declared["height"], declared["width"])
    images = torch.randn(shape, device=device)
    if fast:
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    classes = declared["nodes"][-1]["shape"]["channels"]
    labels = torch.randint(classes, (declared["batch"],), device=device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    loss_of = nn.CrossEntropyLoss()
    seconds = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        optimiser.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=fast):
            loss = loss_of(network(images), labels)
        loss.backward()
        optimiser.step()
        loss.item()
        seconds.append(time.perf_counter() - start)
    print(f"{declared['batch'] / statistics.median(seconds[2:]):.1f}")


if __name__ == "__main__":
    main()
