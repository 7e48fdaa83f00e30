# %% [markdown]
# # Black boxes of any kind
#
# A service behind a web page, a model in another language, a forest of decision trees: all that can
# be had is an answer. This tutorial explains a function that says nothing but a label, and a
# scikit-learn estimator; it counts what it asks, teaches a student to answer alike, looks at the
# agreement first, and judges the maps by asking the box itself.
#
# It runs in half a minute on a CPU core and needs no download, but scikit-learn for the second
# half. Pictures go to the folder that `TUTORIAL_OUT` names.

# %%
import os
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

from captum_blackbox import RISE, BlackBox, DistilledLayerSumGradCAM, metrics
from captum_blackbox.concepts import Scenes
from captum_blackbox.errors import QueryBudgetError
from captum_blackbox.report import (
    game_png,
    loss_png,
    montage_png,
    overlay_png,
    paired_difference,
    picture_png,
)
from captum_blackbox.student import student_network

out = Path(os.environ.get("TUTORIAL_OUT", "tutorial-output"))
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

# %% [markdown]
# ## A function that answers with a label
#
# Somebody else's rule: it reads one corner of the picture and says whether it is bright. Nobody
# tells us. Arrays go in, integers come out.


# %%
def answer(pictures: np.ndarray) -> np.ndarray:
    corner = pictures[:, :, :24, :24]
    return (corner.mean(axis=(1, 2, 3)) > 0.35).astype(int)


box = BlackBox.from_numpy(answer, output="labels", num_classes=2, query_budget=3000)

# %% [markdown]
# What the box answers is declared, never guessed: integers could be anything. A box is a function
# from images to probabilities; labels become 0 and 1. Every image asked is counted, and a call that
# would exceed the budget is refused *before* anything is asked.

# %%
scenes = Scenes(60, seed=5).images
probabilities = box(scenes)
bright = scenes[probabilities[:, 1] == 1][:4]
print(
    f"{len(scenes)} images asked, {box.queries} counted; bright: {int(probabilities[:, 1].sum())}"
)
assert set(probabilities.flatten().tolist()) == {0.0, 1.0}
assert box.queries == 60
assert len(bright) == 4

try:
    box(scenes.repeat(50, 1, 1, 1))
except QueryBudgetError as error:
    print(error)
assert box.queries == 60  # nothing was spent

# %% [markdown]
# RISE covers the image with random masks and averages those under which the answer stays. That
# needs no gradient, no student and no probabilities, only patience: 600 questions an image. It asks
# in many calls, so reckon beforehand: 4 · 600 questions fit the budget.

# %%
maps = RISE(box, masks=600).attribute(bright, target=1)
print(f"{box.queries} of {box.query_budget} questions")
truth = torch.zeros(64, 64)
truth[:24, :24] = 1
found = metrics.relevance_rank(maps, truth.expand(4, 64, 64))
print(f"of the pixels that RISE names first, {found.mean():.2f} lie in the corner; by chance 0.14")
assert found.mean() > 0.5
(out / "corner.png").write_bytes(
    montage_png(
        {
            "image": [picture_png(image) for image in bright],
            "RISE": [
                overlay_png(*pair, floor="minimum") for pair in zip(bright, maps, strict=True)
            ],
        },
        [f"scene {i}" for i in range(4)],
        edge=168,
    )
)

# %% [markdown]
# ## A scikit-learn estimator
#
# A forest of decision trees, trained on digits of 8 by 8 pixels. There is no gradient anywhere in
# it. `from_sklearn` flattens images and asks `predict_proba`; with a `cache` (a file, or
# `":memory:"`) no image is asked twice, and a notebook that is run again costs nothing.

# %%
digits = load_digits()
images = torch.as_tensor(digits.images, dtype=torch.float32)[:, None] / 16  # (1797, 1, 8, 8)
labels = torch.as_tensor(digits.target)
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
own, given, held, judged = order.split([700, 800, 200, 97])  # the forest's; ours, of three kinds
forest = RandomForestClassifier(100, random_state=0).fit(
    images[own].flatten(1).double().numpy(), labels[own].numpy()
)
cache = out / "answers.sqlite"
cache.unlink(missing_ok=True)
box = BlackBox.from_sklearn(forest, cache=cache)
accuracy = (box(images[judged]).argmax(1) == labels[judged]).float().mean()
print(f"the forest is right on {accuracy:.2f} of {len(judged)} digits")
assert accuracy > 0.9

again = BlackBox.from_sklearn(forest, cache=cache)
again(images[judged])
print(f"asked by the second box: {again.asked}, by both: {again.queries}")
assert again.asked == 0

# %% [markdown]
# ## Teach a student, and look at the agreement first
#
# `DistilledLayerSumGradCAM` teaches a small network to answer as the box does, and adds up the
# Grad-CAMs of all its layers. Images without labels are enough. They should look like those that
# will be explained, with the box's mistakes, not the world's truth, as the answers.
#
# The student halves a picture twice: of 8 by 8 pixels its last maps would have 2 by 2 cells. So a
# second student gets the digits enlarged, by `student_preprocess`; the box sees what it saw before.


# %%
def enlarged(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")


explainers = {}
for name, preprocess in (("student", None), ("student, enlarged", enlarged)):
    torch.manual_seed(0)
    student = student_network("small_cnn", 10, in_channels=1)
    explainers[name] = DistilledLayerSumGradCAM(box, student, student_preprocess=preprocess)
    report = explainers[name].distill(
        images[given], epochs=8, validation=images[held], show_progress=False
    )
    print(f"{name}: {report}")
(out / "digits_loss.png").write_bytes(loss_png(report.loss_curve))
assert box.queries == len(judged) + len(given) + len(held)  # each once, for both students

# %% [markdown]
# The agreement says how much of the box a student has learned, on images that it has not seen.
# Beside them, one that was taught in a hurry.

# %%
torch.manual_seed(1)
hasty = DistilledLayerSumGradCAM(box, student_network("small_cnn", 10, in_channels=1))
hasty.distill(images[given][:60], epochs=2, min_fidelity=0.0, show_progress=False)
explainers["hasty student"] = hasty
agreements = {name: each.agreement(images[judged]) for name, each in explainers.items()}
print(agreements)
assert agreements["student"] > 0.85
assert agreements["student, enlarged"] > 0.85
assert agreements["hasty student"] < 0.5

# %% [markdown]
# ## Explain
#
# For the class that the *box* predicts. Maps of a student cost one gradient of the student and no
# question; RISE, the baseline, 400 questions an image. Two maps that know nothing stand beside:
# random numbers, and the picture itself.

# %%
shown = images[judged][:48]
classes = box(shown).argmax(1)
before = box.queries
maps = {name: each.attribute(shown, target=classes) for name, each in explainers.items()}
assert box.queries == before
maps["RISE"] = RISE(box, masks=400, grid=4).attribute(shown, target=classes)
print(f"RISE asked {box.queries - before} questions for {len(shown)} digits")
maps["random"] = torch.rand(shown.shape, generator=torch.Generator().manual_seed(2))
maps["the ink"] = shown
rows = {
    f"{i}: box says {int(classes[i])}": [
        picture_png(shown[i]),
        *(
            overlay_png(shown[i], each[i], floor="minimum" if name == "RISE" else "zero")
            for name, each in maps.items()
        ),
    ]
    for i in range(4)
}
(out / "digits.png").write_bytes(montage_png(rows, ["digit", *maps], edge=144))

# %% [markdown]
# ## Is the map right?
#
# Ask the box. Deletion takes the pixels away that a map names first, and the probability should
# fall at once; insertion brings them to an empty picture, and it should rise at once. Here an empty
# picture is black, as the paper around a digit is.

# %%
differences = {}
for game, play in (("deletion", metrics.deletion), ("insertion", metrics.insertion)):
    played = {
        name: play(box, shown, each, classes, step=2, substrate="zeros")
        for name, each in maps.items()
    }
    curves = {name: each.curve for name, each in played.items()}
    (out / f"digits_{game}.png").write_bytes(game_png(curves, game))
    for name, each in played.items():
        gap = paired_difference(each.auc, played["random"].auc)
        differences[game, name] = gap
        interval = f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
        print(f"{game:9} {name:17} {each.auc.mean():.3f}, less random {interval}")

for game, sign in (("deletion", -1), ("insertion", 1)):
    for name in ("RISE", "the ink"):
        assert sign * differences[game, name].mean > 0.1
        assert differences[game, name].excludes_zero
assert differences["insertion", "student, enlarged"].low > 0
assert differences["insertion", "student"].mean < differences["insertion", "RISE"].mean - 0.1

# %% [markdown]
# Read this as it is, losses included:
#
# * RISE wins over both students, for 400 questions an image.
# * The student that agrees best has coarse maps that are no better than chance; enlarging the
#   digits costs some agreement and makes the maps better than chance. Agreement is needed, and not
#   enough: play the games.
# * The hasty student, which agrees with the box on one digit in nine, wins insertion against
#   random: a network that knows nothing of the box finds the ink, too. Better than random is not
#   enough either: look at the agreement first.
# * The picture itself, a map without any model, is level with RISE in deletion and ahead in
#   insertion: where an empty picture is black, only ink can matter. Whoever claims more has to
#   beat that.
#
# ## When not to use it
#
# * You have the weights: then `LayerSumGradCAM` or any gradient method explains the model itself.
# * The student disagrees with the box. Give it more images like those that are explained, enlarge
#   them, or train longer; otherwise take RISE.
# * Questions are dear and images few: RISE costs hundreds an image, a student thousands once.
# * The cause is smaller than a cell of RISE's grid, or than a cell of the student's last layer.
