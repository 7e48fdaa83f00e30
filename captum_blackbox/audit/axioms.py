"""Which axioms the methods of an audit meet, as ``docs/axioms.md`` has them."""

from collections.abc import Mapping

AXIOMS = (
    "completeness",
    "sensitivity",
    "dummy",
    "implementation invariance",
    "linearity",
    "symmetry",
    "input shift",
    "class sensitivity",
    "parameter randomisation",
)

DEMANDS: Mapping[str, str] = {
    "completeness": "importance adds up to the score less that of a black image",
    "sensitivity": "a value that alone changes the score has some importance",
    "dummy": "pixels that change no score have none",
    "implementation invariance": "networks that compute the same get the same maps",
    "linearity": "the map of a sum of networks is the sum of their maps",
    "symmetry": "pixels that can be exchanged, and are equal, are equally important",
    "input shift": "a constant that the network takes off again changes nothing",
    "class sensitivity": "the most and the least likely class have different maps",
    "parameter randomisation": "random weights give other maps",
}
"""Axiom → what it demands."""

SANITY = ("class sensitivity", "parameter randomisation")
"""Without these a map is hardly about the model at all."""

LINES: Mapping[str, tuple[str, str]] = {
    "gradient": ("Saliency", "✗✗✓✓✗✓✓✓✓"),
    "input-x-gradient": ("InputXGradient", "✗✗✓✓✓✓✗✓✓"),
    "ig": ("IntegratedGradients", "✓✓✓✓✓✓✗✓✓"),
    "deeplift": ("DeepLift", "✓✓✓✗✓✗✗✓✓"),
    "guided-backprop": ("GuidedBackprop", "✗✗✗✗✗✗✓✗✗"),
    "deconvnet": ("Deconvolution", "✗✗✗✗✗✗✓✓✓"),
    "grad-cam": ("LayerGradCam, last convolution", "✗✗✗✗✗✓✓✓✓"),
    "guided-grad-cam": ("GuidedGradCam", "✗✗✗✗✗✗✓✓✓"),
    "layer-sum": ("LayerSumGradCAM", "✗✗✗✗✗✓✓✓✓"),
    "pattern-attribution": ("PatternAttribution", "✗✗✓✗✗✗✗✓✓"),
    "pattern-attribution, centred": ("PatternAttribution, centred in its regime", "✗✗✓✗✗✗✓✗✗"),
    "distilled": ("DistilledLayerSumGradCAM", "✗✗✗✓✗✗✗✓✓"),
    "occlusion": ("Occlusion, 3×3 pixels", "✗✓✗✓✓✓✗✓✓"),
    "rise": ("RISE, 1000 masks", "✗✓✗✓✗✗✗✓✓"),
}
"""Method of an audit → its line in ``docs/axioms.md``: checked there, not once more here."""


def axioms_of(method: str) -> dict[str, bool]:
    """Return axiom → whether no counter-example was found; empty for methods without a line.

    Example:
        >>> axioms_of("ig")["completeness"], axioms_of("gradient")["completeness"]
        (True, False)
    """
    if method not in LINES:
        return {}
    return {axiom: mark == "✓" for axiom, mark in zip(AXIOMS, LINES[method][1], strict=True)}
