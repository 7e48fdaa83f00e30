# %% [markdown]
# # Network Dissection: what does a unit stand for?
#
# A unit of a convolutional layer is a map that lights up at some places of some images. Lay the
# places where it lights up over masks of known concepts: if they overlap a concept's mask by more
# than chance would have it, the unit is a *detector* of that concept. This tutorial dissects the
# built-in network, does what it takes to believe the outcome, and explains single predictions by
# concepts.
#
# It runs in half a minute on a CPU core and needs no download. Pictures go to the folder that
# `TUTORIAL_OUT` names.

# %%
import os
from pathlib import Path

import torch
from PIL import Image

from captum_blackbox import (
    ColorConcepts,
    Dissection,
    MaskConcepts,
    NetworkDissection,
    SceneConcepts,
    ShuffledConcepts,
    compare_layers,
    compare_networks,
    compare_rotations,
    unit_effects,
)
from captum_blackbox.concepts import SCENE_CLASSES, Scenes
from captum_blackbox.demo import DemoNetwork, load_demo_network
from captum_blackbox.report import (
    comparison_bars_png,
    comparison_lines_png,
    detector_bars_png,
    montage_png,
    overlay_png,
    picture_png,
    unit_gallery_png,
)

out = Path(os.environ.get("TUTORIAL_OUT", "tutorial-output"))
out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A layer, unit by unit
#
# The built-in network names the object in rendered scenes. `SceneConcepts` knows the object, part,
# colour and texture at every pixel of them. One pass over the images is enough.

# %%
network = load_demo_network()
concepts = SceneConcepts(250, seed=7)
layers = [f"features.{block}.2" for block in range(3, 7)]
dissection = NetworkDissection(network, "features.5.2")
result = dissection.dissect(concepts, show_progress=False)
print(result)
for unit in result.detectors()[:8]:
    print(f"unit {unit.unit:2}: {unit.label} ({unit.category}), IoU {unit.iou:.2f}")

# %% [markdown]
# `unique_detectors` counts the concepts that some unit detects: the measure that the paper compares
# networks by.

# %%
(out / "bars.png").write_bytes(detector_bars_png(result))
assert result.unique_detectors() >= 15
assert all(unit.iou > 0.04 for unit in result.detectors())

# %% [markdown]
# Never believe a table alone. Look at the images on which a unit is most active, and at what is lit
# there.

# %%
best = result.detectors()[:6]
pictures = torch.stack(
    [torch.stack([concepts.image(int(i)) for i in result.top_images[u.unit][:8]]) for u in best]
)
masks = torch.stack(
    [
        dissection.masks(images, [unit.unit], (64, 64))[:, 0]
        for unit, images in zip(best, pictures, strict=True)
    ]
)
titles = [f"unit {unit.unit} · {unit.label} ({unit.category}) {unit.iou:.2f}" for unit in best]
(out / "gallery.png").write_bytes(unit_gallery_png(pictures, masks, titles))

# %% [markdown]
# ## Could it be chance?
#
# Two controls belong to every dissection. `ShuffledConcepts` gives each image the masks of another
# one: what is left comes from sizes and usual places of masks. An untrained network tells what
# architecture and threshold find on their own.

# %%
torch.manual_seed(0)
untrained = DemoNetwork().eval()
compared = compare_networks(
    {
        "trained": NetworkDissection(network, "features.5.2"),
        "untrained": NetworkDissection(untrained, "features.5.2"),
    },
    concepts,
    show_progress=False,
)
print(compared)
by_chance = NetworkDissection(network, "features.5.2").dissect(
    ShuffledConcepts(concepts), show_progress=False
)
results = {**compared.results, "trained, masks shuffled": by_chance}
(out / "controls.png").write_bytes(comparison_bars_png(results))
unique = {name: each.unique_detectors() for name, each in results.items()}
print(unique)
assert unique["trained"] > 3 * max(unique["untrained"], unique["trained, masks shuffled"])

# %% [markdown]
# Layers differ: early ones have few detectors here, late ones name parts and whole objects.

# %%
across = compare_layers(NetworkDissection(network, layers), concepts, show_progress=False)
(out / "layers.png").write_bytes(comparison_bars_png(across.results))
rows = {row["layer"]: row for row in across.table()}
print(across)
assert rows["features.3.2"]["unique"] < rows["features.6.2"]["unique"]

# %% [markdown]
# ## Is a unit special, or would any direction do?
#
# Rotate the space of the units: all that the layer can tell apart can still be told apart, so the
# network may be as accurate as before, but the axes are mixtures. If concepts fade, the units are
# special (Bau et al., fig. 4).

# %%
middle = NetworkDissection(network, "features.4.2")
turned = compare_rotations(middle, concepts, (0.0, 0.5, 1.0), show_progress=False)
(out / "rotation.png").write_bytes(
    comparison_lines_png(turned.values, list(turned.results.values()), "rotation")
)
print(turned)
assert turned.results["0"].unique_detectors() > turned.results["1"].unique_detectors()

# %% [markdown]
# Take care in the last layer. Its units are detectors of classes that exclude each other, and a
# rotation mixes *few* of them: such a mixture lights up on several objects, whose parts then count
# as further unique detectors. There the number rises, and that says nothing about interpretability.

# %%
last = NetworkDissection(network, "features.6.2")
turned_last = compare_rotations(last, concepts, (0.0, 1.0), show_progress=False)
print({name: each.unique_detectors() for name, each in turned_last.results.items()})

# %% [markdown]
# ## Which concepts made this prediction?
#
# Behind the last block this network averages and applies one linear layer, so the logit *is* a sum
# over units: $z = b + \sum_k w_k \bar a_k$. Grouped by what the units stand for, the terms say
# which concepts made the prediction. They add up; nothing is approximated (`is_exact`).

# %%
dissection = NetworkDissection(network, "features.6.2")
dissection.dissect(concepts, show_progress=False)
fresh = Scenes(200, seed=8)
image, label = fresh[0]
explanation = dissection.explain(image[None])
print(f"{SCENE_CLASSES[int(explanation.targets)]}: logit {float(explanation.scores):.2f}")
print(f"bias {float(explanation.bias):+.2f}")
for share in explanation.supporting(0, 4) + explanation.opposing(0, 2)[::-1]:
    print(f"{share.concept:12} {share.contribution:+.2f}  units {share.units}")
total = sum(explanation.by_concept().values()) + explanation.bias
torch.testing.assert_close(total, explanation.scores, atol=1e-5, rtol=1e-5)
assert explanation.is_exact.all()

# %% [markdown]
# Sail, hull and mast are as one would wish. Units named `car` speak for a sailboat too: a name is
# the concept that a unit matches *best*, at its highest activations, and not all that it is for.
#
# The same as a map: where in the image did these units speak for the class?

# %%
strongest = explanation.supporting(0)[0].concept
whole = dissection.attribute(image[None])
one = dissection.attribute(image[None], concept=strongest)
(out / "explanation.png").write_bytes(
    montage_png(
        {"scene 0": [picture_png(image), overlay_png(image, whole[0]), overlay_png(image, one[0])]},
        ["scene", "all concepts", strongest],
    )
)

# %% [markdown]
# ## Why was it wrong?
#
# Hide the left half of scenes until the network errs, and ask for both classes. The difference of
# their contributions says which concepts tipped the balance.

# %%
halved = fresh.images.clone()
halved[..., :32] = 0.5
with torch.no_grad():
    predicted = network(halved).argmax(1)
wrong = int((predicted != fresh.labels).nonzero()[0])
said, true = int(predicted[wrong]), int(fresh.labels[wrong])
for_said = dissection.explain(halved[wrong : wrong + 1], said)
for_true = dissection.explain(halved[wrong : wrong + 1], true)
gap = {
    name: float(each - for_true.by_concept()[name]) for name, each in for_said.by_concept().items()
}
print(f"{SCENE_CLASSES[true]} was taken for {SCENE_CLASSES[said]}:")
for name in sorted(gap, key=lambda name: -gap[name])[:4]:
    print(f"  {name:12} {gap[name]:+.2f}")
difference = float(for_said.scores - for_true.scores)
assert difference > 0
assert abs(sum(gap.values()) + float(for_said.bias - for_true.bias) - difference) < 1e-4

# %% [markdown]
# ## Does the network need these units?
#
# Contributions say what was added up; silencing says what the network cannot do without. Silence
# the units of an object and its parts, and see which class suffers.

# %%
car = [unit for name in ("car", "wheel") for unit in dissection.result.units_of(name)]
with torch.no_grad():
    before = network(fresh.images).argmax(1) == fresh.labels
    with dissection.ablate(car) as ablated:
        after = ablated(fresh.images).argmax(1) == fresh.labels
is_car = fresh.labels == SCENE_CLASSES.index("car")
print(f"cars recognised: {before[is_car].float().mean():.2f} → {after[is_car].float().mean():.2f}")
print(f"others: {before[~is_car].float().mean():.2f} → {after[~is_car].float().mean():.2f}")
loss = before.float() - after.float()
assert loss[is_car].mean() > loss[~is_car].mean() + 0.1

effects = unit_effects(dissection, [(fresh.images, fresh.labels)], show_progress=False)
names = {unit.unit: unit.label for unit in dissection.result.units()}
for class_name in ("car", "fish"):
    ranking = effects.ranking(SCENE_CLASSES.index(class_name))
    print(class_name, "needs most:", [f"{unit} ({names[unit]})" for unit in ranking[:4]])

# %% [markdown]
# ## Your own images and masks
#
# A folder of images with a PNG mask of the same name each, as here, or tensors;
# `TorchvisionConcepts` takes segmentation data sets, `BrodenConcepts` Broden itself.
# `ColorConcepts` adds the colours of the pixels to any of them.

# %%
folder = out / "own"
folder.mkdir(exist_ok=True)
drawn = fresh.masks("object")
for number in range(40):
    pixels = (fresh.images[number] * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(folder / f"{number:03}.jpg", quality=95)
    Image.fromarray(drawn[number].byte().numpy()).save(folder / f"{number:03}.png")
own = ColorConcepts(MaskConcepts.from_folder(folder, list(SCENE_CLASSES), size=64, mask_size=64))
of_own = NetworkDissection(network, "features.6.2").dissect(own, show_progress=False)
print(of_own)
assert set(of_own.categories) == {"object", "color"}

# %% [markdown]
# ## Keeping the result
#
# `save` keeps everything, `to_csv` writes the table in the columns that the authors published. A
# kept result explains predictions without dissecting again, and only for the network it belongs to.

# %%
dissection.result.save(out / "features.6.2.safetensors")
dissection.result.to_csv(out / "features.6.2.csv")
kept = NetworkDissection(load_demo_network(), "features.6.2").use(
    Dissection.load(out / "features.6.2.safetensors")
)
again = kept.explain(image[None])
assert torch.equal(again.contributions, explanation.contributions)

# %% [markdown]
# ## When not to believe it
#
# * A name is the *best* of the concepts that were offered. What the unit really likes may not be
#   among them: look at the gallery.
# * With a few hundred images and many rare concepts, an IoU above 0.04 comes about by chance: a
#   concept that two images show is matched by any unit that likes one of them. Run the controls.
# * Units that saturate (ReLU6) tie at their largest value, and nothing is above the threshold:
#   dissect what lies in front of the activation.
# * Unique detectors measure alignment with the axes, for these concepts; a layer with fewer of them
#   may know as much.
# * Away from global average pooling and a linear layer, contributions are first-order only:
#   `is_exact` says so, and `residual` how much is left out.
