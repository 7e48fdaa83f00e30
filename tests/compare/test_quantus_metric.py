"""Metrics of Quantus in a comparison."""

import warnings

import numpy as np
import pytest
import quantus
import torch
from captum.attr import Saliency
from compared import images, network, quietly

from captum_blackbox import BlackBox
from captum_blackbox.compare import FunctionMetric, QuantusMetric
from captum_blackbox.errors import InputError, MissingExtraError

MODEL = network().eval()
TARGETS = torch.tensor([0, 1, 2])
MASKS = torch.zeros(3, 8, 8)
MASKS[:, 2:6, 1:5] = 1


def saliency(x, y):
    return Saliency(MODEL).attribute(x.requires_grad_(), y)


def direct(metric, **kwargs):
    """Call Quantus as its documentation does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return metric(
            model=MODEL,
            x_batch=images().numpy(),
            y_batch=TARGETS.numpy(),
            a_batch=saliency(images(), TARGETS).sum(1, keepdim=True).numpy(),
            **kwargs,
        )


def scores(*metrics, methods=None, **kwargs):
    methods = methods or {"saliency": "saliency"}
    return quietly(MODEL, images(), methods, metrics, target=TARGETS, **kwargs)


def test_values_are_those_of_quantus():
    found = scores(
        "quantus:Sparseness",
        QuantusMetric("PixelFlipping", features_in_step=8),
        "quantus:PointingGame",
        masks=MASKS,
    )
    assert found.failures == ()
    assert found.metrics == {
        "quantus:Sparseness": True,
        "quantus:PixelFlipping": False,
        "quantus:PointingGame": True,
    }
    sparse = direct(quantus.Sparseness(disable_warnings=True))
    np.testing.assert_allclose(found.scores("saliency", "quantus:Sparseness"), sparse, rtol=1e-5)
    curves = direct(quantus.PixelFlipping(features_in_step=8, disable_warnings=True))
    expected = [np.mean(curve) for curve in curves]
    np.testing.assert_allclose(
        found.scores("saliency", "quantus:PixelFlipping"), expected, rtol=1e-5
    )
    masks = MASKS[:, None].bool().numpy()
    hits = direct(quantus.PointingGame(disable_warnings=True), s_batch=masks)
    assert found.scores("saliency", "quantus:PointingGame").tolist() == [float(h) for h in hits]


def test_random_weights_get_an_explanation_of_their_own():
    methods = {
        "name": "saliency",
        "class": Saliency,
        "object": Saliency(MODEL),
        "fitted": "pattern_attribution",
    }
    found = scores(
        QuantusMetric("MPRT", return_average_correlation=True),
        QuantusMetric("MaxSensitivity", nr_samples=2),
        methods=methods,
        data=torch.rand(40, 2, 8, 8),
    )
    mprt = "quantus:MPRT"
    assert torch.equal(found.scores("name", mprt), found.scores("class", mprt))
    assert bool((found.scores("name", mprt) < 0.99).all())
    assert bool(found.scores("fitted", mprt).isfinite().any())
    bound = [each for each in found.failures if each.method == "object"]
    assert {each.metric for each in bound} == {mprt}
    assert "'object' is bound to its model, and this metric explains others" in bound[0].reason
    # Other images of the same model need no other object.
    assert bool(found.scores("object", "quantus:MaxSensitivity").isfinite().all())


def test_what_can_only_be_called_is_not_for_quantus():
    box = BlackBox(lambda x: MODEL(x), output="logits")
    found = quietly(box, images(), ["random"], ["quantus:Sparseness", "deletion"])
    assert [(each.metric, each.image, each.is_applicable) for each in found.failures] == [
        ("quantus:Sparseness", None, False)
    ]


def test_names():
    with pytest.raises(InputError) as caught:
        scores("quantus:PixelFliping")
    assert "there is no metric of Quantus 'PixelFliping'" in str(caught.value)
    assert "'PixelFlipping'" in str(caught.value)
    with pytest.raises(InputError, match="quantus:PointingGame need to know where the truth lies"):
        scores("quantus:PointingGame")
    assert repr(QuantusMetric("MPRT", seed=3)) == "QuantusMetric('quantus:MPRT', {'seed': 3})"


def test_without_quantus(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("captum_blackbox.compare.quantus_metric.import_module", missing)
    with pytest.raises(MissingExtraError, match="pip install 'captum-blackbox\\[bench\\]'"):
        scores("quantus:MPRT")


def test_another_metric_is_an_object_with_a_name():
    # The way in for metrics of one's own, such as how far an attack moves a map.
    class Moved:
        name = "moved"
        higher_is_better = False
        needs_masks = False

        def __call__(self, context, method, maps):
            again = method(context.images + 0.1, context.targets)
            return (again - maps).abs().flatten(1).amax(1)

    found = scores(Moved(), FunctionMetric("zero", lambda c, m, a: 0 * c.targets, True))
    assert found.failures == ()
    assert found.metrics == {"moved": False, "zero": True}
    assert found.scores("saliency", "zero").tolist() == [0, 0, 0]
