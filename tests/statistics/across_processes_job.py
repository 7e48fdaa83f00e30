"""Statistics to gather in processes of a gloo group: each takes its share and merges."""

import sys
from pathlib import Path

import torch
from torch import distributed, nn

from captum_blackbox.artifacts import save_artifact
from captum_blackbox.patterns.linear_layers import LinearLayer
from captum_blackbox.statistics import RegimeCovariance, merge_across_processes


def batches():
    """Return the layers, and five batches of inputs and outputs for each."""
    generator = torch.Generator().manual_seed(4)
    torch.manual_seed(5)
    layers = {"conv": nn.Conv2d(2, 3, 3, padding=1), "linear": nn.Linear(3, 4)}
    shapes = {"conv": (2, 2, 4, 4), "linear": (3, 3)}
    data = {name: [] for name in layers}
    for name, layer in layers.items():
        layer.double()
        for _ in range(5):
            inputs = torch.randn(shapes[name], generator=generator, dtype=torch.float64) + 2
            data[name].append((inputs, layer(inputs).detach()))
    return layers, data


def main(folder):
    """Merge three times: shares that differ, one process with nothing, nobody with anything."""
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    layers, data = batches()
    shares = {"uneven": [range(4), [4]], "idle": [[], range(5)], "nothing": [[], []]}
    for kind, share in shares.items():
        statistics = {n: RegimeCovariance(LinearLayer.of(layer)) for n, layer in layers.items()}
        for name, statistic in statistics.items():
            for batch in share[rank]:
                statistic.update(*data[name][batch])
        merge_across_processes(statistics)
        state = {
            f"{name}/{key}": tensor
            for name, statistic in statistics.items()
            for key, tensor in statistic.state().items()
        }
        save_artifact(Path(folder) / f"{kind}-{rank}.safetensors", state, {})
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
