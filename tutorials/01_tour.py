# %% [markdown]
# # A tour: one model, four questions
#
# Captum says which input mattered. This library answers four questions more, in Captum's own calls:
#
# 1. What did the model look at?
# 2. What in the picture is signal, and what distractor?
# 3. Which concepts made this prediction?
# 4. How easily is the explanation moved while the prediction stays?
#
# The tour asks all four about one network, and then what each answer costs, what it needs, and when
# not to ask. It runs in half a minute on a CPU core and needs no download. Pictures go to the
# folder that `TUTORIAL_OUT` names. (For verdicts on maps of your own model, without any code, there
# is `captum-blackbox audit`.)

# %%
import os
from pathlib import Path

import torch
from captum.attr import NoiseTunnel, Saliency
from captum.metrics import infidelity, sensitivity_max

from captum_blackbox import (
    InterpretationAttack,
    LayerSumGradCAM,
    NetworkDissection,
    PatternAttribution,
    Patterns,
    SceneConcepts,
    compare,
    metrics,
)
from captum_blackbox.concepts import SCENE_CLASSES, Scenes
from captum_blackbox.demo import load_demo_network
from captum_blackbox.report import (
    Moved,
    attacked_png,
    attribution_png,
    contributions_png,
    game_png,
    montage_png,
    overlay_png,
    picture_png,
)

out = Path(os.environ.get("TUTORIAL_OUT", "tutorial-output"))
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

# %% [markdown]
# ## The model
#
# The built-in network names the object in rendered scenes. Of a scene every pixel is known, so it
# is known where the object is.

# %%
network = load_demo_network()
scenes = Scenes(220, seed=7)
images, labels = scenes.images[200:], scenes.labels[200:]
objects = scenes.masks("object")[200:] > 0
with torch.no_grad():
    classes = network(images).argmax(1)
print(f"{(classes == labels).float().mean():.2f} of {len(images)} scenes are named correctly")
print([SCENE_CLASSES[int(each)] for each in classes[:4]])
share = objects.double().mean()

# %% [markdown]
# ## 1. What did it look at?
#
# `LayerSumGradCAM` adds up the Grad-CAMs of all layers, at the price of one gradient. For a model
# that can only be called there is `DistilledLayerSumGradCAM`: `02_black_box.py`.

# %%
layer_sum = LayerSumGradCAM(network)
looked = layer_sum.attribute(images, target=classes)  # (20, 1, 64, 64), not negative
mass = metrics.relevance_mass(looked, objects).mean()
print(f"{mass:.2f} of the importance lies on objects, which cover {share:.2f} of the pictures")
assert mass > 1.5 * share

# %% [markdown]
# That it lies on the object makes it plausible, not right. It is right if the network itself
# confirms it: bring back the pixels that the map names first, and the probability should rise at
# once. Random maps stand beside it; without a baseline the number says nothing.

# %%
maps = {"layer-sum": looked, "random": torch.rand_like(looked)}
games = {name: metrics.insertion(network, images, each, classes) for name, each in maps.items()}
(out / "tour_insertion.png").write_bytes(
    game_png({name: game.curve for name, game in games.items()}, "insertion")
)
areas = {name: game.auc.mean().item() for name, game in games.items()}
print(areas)
assert areas["layer-sum"] > areas["random"] + 0.1

# %% [markdown]
# ## 2. What is signal, what distractor?
#
# A weight says what a unit computes, not what it responds to. Patterns are learned from images
# without labels, here 200, and turn a gradient into shares of the prediction. `regime_centering` is
# for networks with BatchNorm, as this one is. `03_patterns.py`.

# %%
patterns = Patterns.fit(network, scenes.images[:200], regime_centering=True, show_progress=False)
pattern = PatternAttribution(network, patterns)
contributed = pattern.attribute(images, target=classes)  # (20, 3, 64, 64), with signs
mass = metrics.relevance_mass(contributed, objects).mean()
print(f"{mass:.2f} of the positive relevance lies on objects")
assert mass > 1.5 * share

# %% [markdown]
# ## 3. Which concepts made this prediction?
#
# A unit that lights up where wheels are is a detector of wheels. Compare all units of a layer with
# masks of concepts, once; then a prediction is a sum over what the units stand for.
# `04_dissection.py`.

# %%
dissection = NetworkDissection(network, "features.6.2")
result = dissection.dissect(SceneConcepts(200, seed=5), show_progress=False)
explanation = dissection.explain(images, classes)
print(f"{result.unique_detectors()} concepts have a detector; scene 0 is what it is because of")
for concept in explanation.supporting(0, 3):
    print(f"  {concept.concept:12} {concept.contribution:+.2f}  units {concept.units}")
(out / "tour_concepts.png").write_bytes(
    contributions_png(explanation, class_name=SCENE_CLASSES[int(classes[0])])
)
total = sum(explanation.by_concept().values()) + explanation.bias
torch.testing.assert_close(total, explanation.scores, atol=1e-4, rtol=1e-4)  # nothing is left out
fired = dissection.attribute(images, target=classes)  # where: (20, 1, 64, 64), with signs

# %% [markdown]
# Three answers beside each other:

# %%
rows = {
    f"scene {i}: {SCENE_CLASSES[int(classes[i])]}": [
        picture_png(images[i]),
        overlay_png(images[i], looked[i]),
        attribution_png(contributed[i]),
        overlay_png(images[i], fired[i]),
    ]
    for i in range(4)
}
columns = ["scene", "LayerSumGradCAM", "PatternAttribution", "NetworkDissection"]
(out / "tour_maps.png").write_bytes(montage_png(rows, columns, edge=192))

# %% [markdown]
# They agree on the whole, and differ where it matters: in scene 2 PatternAttribution names a speck
# on the wall first. No map can be believed for its looks.
#
# ## 4. How easily is it moved?
#
# Look for a picture that looks the same, is named the same, and is explained differently. Here each
# number may change by 4 of 255 shades. Of the most important pixels, how many still are?
# `05_fragility.py`.

# %%
radius, few, named = 4 / 255, images[:4], classes[:4]
attacks = {
    "Saliency": InterpretationAttack(Saliency(network)),
    "LayerSumGradCAM": InterpretationAttack(layer_sum),
}
attacked = {
    name: attack.run(few, radius, step_num=12, target=named) for name, attack in attacks.items()
}
moved = {}
for name, each in attacked.items():
    kept = each.attacked.intersection
    print(f"{name}: of the most important pixels {kept.mean():.2f} still are")
    assert each.label_kept.all()
    assert (each.inputs - few).abs().max() <= radius + 1e-6
    before, after = (m[0].abs().sum(0) for m in (each.clean_maps, each.attacked_maps))
    moved[name] = Moved(few[0], each.inputs[0], before, after)
(out / "tour_attacked.png").write_bytes(attacked_png(moved, edge=192))
assert attacked["Saliency"].attacked.intersection.mean() < 0.5

# %% [markdown]
# ## Captum around all of it
#
# Everything is a Captum `Attribution`: wrappers and metrics take it as they take their own, and
# Captum's methods go where ours go.

# %%
smooth = NoiseTunnel(layer_sum).attribute(
    few, nt_type="smoothgrad", nt_samples=4, stdevs=0.05, target=named
)
assert smooth.shape == looked[:4].shape


def nearby(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    noise = 0.1 * torch.randn_like(inputs)
    return noise, inputs - noise


for name, method in {"LayerSumGradCAM": layer_sum, "PatternAttribution": pattern}.items():
    change = sensitivity_max(method.attribute, few, target=named, n_perturb_samples=3)
    spread = {} if name == "PatternAttribution" else {"expand_to_input": True}
    wide = method.attribute(few, target=named, **spread)
    unfaithful = infidelity(network, nearby, few, wide, target=named, normalize=True)
    print(f"{name}: sensitivity {change.mean():.2f}, infidelity {unfaithful.mean():.3f}")
    assert change.isfinite().all()
    assert unfaithful.isfinite().all()

# %% [markdown]
# ## What each of them costs
#
# `compare` runs methods over images, judges them, and counts passes of the network.
# `06_comparison.py`.

# %%
table = compare(
    network,
    images[:8],
    {
        "random": "random",
        "LayerSumGradCAM": layer_sum,
        "PatternAttribution": pattern,
        "NetworkDissection": dissection,
        "Occlusion of Captum": "occlusion",
    },
    ["relevance_mass", "insertion"],
    masks=objects[:8],
    target=classes[:8],
    show_progress=False,
)
print(table.to_markdown())
assert table.failures == ()
for name in ("LayerSumGradCAM", "PatternAttribution", "Occlusion of Captum"):
    assert table.difference(name, "insertion", "random").mean > 0
cost = table.cost("LayerSumGradCAM")
assert (cost.each(cost.forward), cost.each(cost.backward)) == (1, 1)
dear = table.cost("Occlusion of Captum")
assert dear.each(dear.forward) > 200

# %% [markdown]
# | | it needs | it costs | not to be used |
# |---|---|---|---|
# | `LayerSumGradCAM` | the layers | one gradient an image | for single pixels |
# | `DistilledLayerSumGradCAM` | answers | training a student once | if the student disagrees |
# | `PatternAttribution` | the network and images | a pass over these once | with GELU, attention |
# | `NetworkDissection` | images with masks | a pass over these once | with few images |
# | `InterpretationAttack` | maps of a gradient | 2 to 6 gradients a step | as proof of a map |
#
# Three habits, whatever the method: put random maps beside, look at several metrics and not at the
# best one, and never take a plausible map for a right one. `06_comparison.py` shows how to compare,
# `07_axioms.py` how to test a method of your own, and `run_audit` brings it all together on one
# page.
