# %% [markdown]
# # Signal and distractor: PatternNet and PatternAttribution
#
# A gradient shows what a network *computes*. It does not show what in the input the network
# *responds to*. This tutorial builds the smallest case in which the two differ, fits patterns that
# tell them apart, and goes on to a real network.
#
# It runs in a minute on a CPU core and needs no download. Pictures go to the folder that
# `TUTORIAL_OUT` names.

# %%
import os
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from captum.attr import InputXGradient, Saliency
from torch import nn
from zennit.attribution import Gradient
from zennit.composites import MixedComposite, NameMapComposite
from zennit.rules import Epsilon

from captum_blackbox import (
    PatternAttribution,
    PatternAttributionComposite,
    PatternNet,
    Patterns,
    metrics,
    signal_quality,
)
from captum_blackbox.concepts import Scenes
from captum_blackbox.demo import load_demo_network
from captum_blackbox.patterns import fit_patterns
from captum_blackbox.report import (
    attribution_png,
    degradation_png,
    montage_png,
    picture_png,
    quality_png,
    signal_png,
)

out = Path(os.environ.get("TUTORIAL_OUT", "tutorial-output"))
out.mkdir(parents=True, exist_ok=True)
generator = torch.Generator().manual_seed(0)

# %% [markdown]
# ## A filter must cancel the distractor, so it does not point at the signal
#
# Data are a signal along $a_s = (1, 0)$, whose strength $y$ is to be found, plus a distractor along
# $a_d = (\cos\theta, \sin\theta)$ that has nothing to do with $y$ (Kindermans et al. 2018, sec. 2,
# Fig. 2). Least squares finds the filter $w$ that gives $w^T x = y$.

# %%
samples = 2000
y = 2 * torch.rand(samples, generator=generator, dtype=torch.float64) - 1
distractor = torch.randn(samples, generator=generator, dtype=torch.float64)
distractor -= distractor.mean() + (distractor @ (y - y.mean()) / (y - y.mean()).square().sum()) * (
    y - y.mean()
)

filters, patterns_found, clouds = {}, {}, {}
for degrees in (30, 60, 90, 120, 150):
    angle = torch.deg2rad(torch.tensor(float(degrees), dtype=torch.float64))
    x = y[:, None] * torch.tensor([1.0, 0.0], dtype=torch.float64)
    x = x + distractor[:, None] * torch.stack([angle.cos(), angle.sin()])
    clouds[degrees] = x
    unit = nn.Linear(2, 1, bias=False).double()
    unit.weight.data = torch.linalg.lstsq(x, y[:, None]).solution.T
    filters[degrees] = unit.weight.detach()[0]
    fitted_unit = Patterns.fit(unit, x, regime="linear", show_progress=False)
    patterns_found[degrees] = next(iter(fitted_unit.values()))[0]

# %% [markdown]
# The filter turns with the distractor. The pattern, `cov[x, y] / var[y]`, stays where the signal
# is.

# %%
figure, axes = plt.subplots(1, 5, figsize=(12, 2.6), sharex=True, sharey=True)
for panel, degrees in zip(axes, filters, strict=True):
    points = clouds[degrees][:300]
    panel.scatter(*points.T, c=y[:300], cmap="coolwarm", s=4, alpha=0.6)
    for direction, color, name in (
        (filters[degrees], "black", "filter w"),
        (patterns_found[degrees], "#009e73", "pattern a"),
    ):
        panel.quiver(
            *(0, 0), *direction, color=color, label=name, angles="xy", scale_units="xy", scale=1
        )
    panel.set(title=f"distractor at {degrees}°", xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal")
figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=2, frameon=False)
figure.subplots_adjust(bottom=0.22)
figure.savefig(out / "toy.png", dpi=120, bbox_inches="tight")
plt.close(figure)

signal = torch.tensor([1.0, 0.0], dtype=torch.float64)
for pattern in patterns_found.values():
    torch.testing.assert_close(pattern, signal, atol=1e-9, rtol=0)
assert abs(filters[30][1] - filters[150][1]) > 3  # the filter swings from one side to the other

# %% [markdown]
# ## A network
#
# The built-in network names the object in rendered scenes. Patterns need images, no labels. Each
# unit gets its own: `patterns["features.0.0"]` has the shape of that layer's weight. BatchNorm is
# folded in on the way; the network itself is not touched.

# %%
network = load_demo_network()
scenes = Scenes(400, seed=7)
fitted = fit_patterns(network, scenes.images[:200], ["filter", "linear"], show_progress=False)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    fitted |= fit_patterns(network, scenes.images[:200], ["two_component"], show_progress=False)
print(said[0].message)
linear = fitted["linear"]
print(linear, linear.report)

# %% [markdown]
# ### Which estimator finds the signal?
#
# If an estimator takes the signal out of a unit's input, what is left should say nothing about
# the unit's output. $\rho$ is 1 minus how well the output can be read off what is left (Eq. 1,
# Fig. 3): higher is better. `S_w`, the assumption behind the gradient, DeConvNet and Guided
# Backprop, is hardly better than a random direction.

# %%
quality = signal_quality(
    network,
    {"S_w": fitted["filter"], "S_a": linear, "S_a+-": fitted["two_component"]},
    fit_loader=scenes.images[200:300],
    eval_loader=scenes.images[300:],
    layers=[f"features.{i}.0" for i in range(7)],  # the last one has too few samples
    show_progress=False,
)
(out / "quality.png").write_bytes(quality_png(quality))
means = {
    name: torch.stack([rho.nanmean() for rho in layers.values()]).mean().item()
    for name, layers in quality.items()
}
print(means)
assert means["S_a"] > 0.8 > means["S_w"] > means["random"]
assert means["S_a+-"] > 0.8

# %% [markdown]
# ### Pictures: the signal, and who contributed
#
# The paper's own regime, the samples at which a unit is active, gave the warning above: BatchNorm
# folds large biases in. Centred within the regime, patterns are well behaved.
#
# `PatternNet` is looked at as a picture: it lives in the input space, in colour.
# `PatternAttribution` is a heat map: red speaks for the class, blue against it. Both cost one
# gradient.

# %%
patterns = Patterns.fit(network, scenes.images[:200], regime_centering=True, show_progress=False)
images = scenes.images[300:304]
classes = network(images).argmax(1)
signals = PatternNet(network, patterns).attribute(images, target=classes)
method = PatternAttribution(network, patterns)
relevance, missing = method.attribute(images, target=classes, return_convergence_delta=True)
by_gradient = InputXGradient(network).attribute(images, target=classes).detach()
saliency = Saliency(network).attribute(images, target=classes, abs=False)

rows = {
    f"scene {i}": [
        picture_png(images[i]),
        signal_png(saliency[i]),
        signal_png(signals[i]),
        attribution_png(by_gradient[i]),
        attribution_png(relevance[i]),
    ]
    for i in range(4)
}
columns = ["scene", "gradient", "PatternNet", "gradient × input", "PatternAttribution"]
(out / "pictures.png").write_bytes(montage_png(rows, columns))

# %% [markdown]
# The map does not add up to the logit here: zero padding swallows relevance, and a ReLU that is off
# passes nothing on. `missing` says how much.

# %%
logits = network(images).gather(1, classes[:, None])[:, 0].detach()
torch.testing.assert_close(relevance.sum((1, 2, 3)) + missing, logits, atol=1e-3, rtol=1e-3)

# %% [markdown]
# ### Is the map right?
#
# Replace the patches that it names first by their own mean, and watch the probability fall (Fig.
# 4a). A higher AOPC is better; random order is the baseline.

# %%
judged = scenes.images[300:340]
targets = network(judged).argmax(1)
maps = {
    "PatternAttribution": method.attribute(judged, target=targets),
    "gradient × input": InputXGradient(network).attribute(judged, target=targets).detach(),
    "random": torch.rand(40, 1, 64, 64, generator=generator),
}
games = {
    name: metrics.patch_degradation(network, judged, each, targets, patch=8, steps=64)
    for name, each in maps.items()
}
(out / "degradation.png").write_bytes(
    degradation_png({name: game.curve for name, game in games.items()})
)
falls = {name: game.aopc.mean().item() for name, game in games.items()}
print(falls)
assert falls["PatternAttribution"] > falls["random"]

# %% [markdown]
# ## In a Zennit pipeline
#
# The composites mix with any other rule: here LRP-ε below the third block, patterns above it.

# %%
lower = [f"features.{i}.0" for i in range(2)]
mixed = MixedComposite(
    [NameMapComposite([(lower, Epsilon())]), PatternAttributionComposite(patterns)]
)
with Gradient(network, mixed) as attributor:
    _, both = attributor(images.clone(), torch.eye(10)[classes])
assert both.shape == images.shape

# %% [markdown]
# ## Keeping patterns
#
# A file belongs to one network. A network that differs in a single layer is refused, by name.

# %%
patterns.save(out / "patterns.safetensors")
again = Patterns.load(out / "patterns.safetensors", load_demo_network())
assert torch.equal(again["classifier"], patterns["classifier"])

# %% [markdown]
# ## When not to use it
#
# * Activations other than ReLU and its kin (GELU, attention): there is no rule, and you are told
#   so.
# * The paper's positive regime where biases are large, as behind BatchNorm: some of its patterns
#   are huge. A warning names the layer; `regime_centering=True` or `regime="linear"` helps.
# * Too few images: a layer with 4096 inputs needs many more samples than that.
