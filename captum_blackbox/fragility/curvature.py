"""How the gradient map of a network bends around an image: the geometry behind its fragility."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_blackbox._compat import class_targets, one_tensor
from captum_blackbox.errors import InputError, warn_user
from captum_blackbox.fragility.chance import generators, random_normals, random_signs
from captum_blackbox.fragility.curvature_result import Curvature, Direction, Movement
from captum_blackbox.fragility.hessian_products import InputHessian, class_scores
from captum_blackbox.fragility.lanczos import Eigenpairs, top_eigenpairs
from captum_blackbox.fragility.second_order import second_order
from captum_blackbox.fragility.surrogate import Sharpness, softened
from captum_blackbox.hooks import unwrapped
from captum_blackbox.shapes import Images, Labels, Target, check_images


def explanation_curvature(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    target: Target = None,
    additional_forward_args: object = None,
    *,
    k: int = 1,
    beta: Sharpness | None = 30.0,
    iterations: int = 100,
    tolerance: float = 1e-3,
    seed: int = 0,
    show_progress: bool = False,
) -> Curvature:
    r"""Find the directions in which a gradient map is most fragile, and how they lie to the score.

    A small change :math:`\delta` of the image moves the gradient map by :math:`H \delta`, where
    :math:`H = \nabla_x^2 S_c` is the Hessian of the class score, and moves the score by
    :math:`\nabla_x S_c \cdot \delta`. The map moves most along the eigenvector of :math:`H` with
    the eigenvalue of largest absolute value. Where that lies across the gradient, the explanation
    changes and the prediction hardly does.

    ReLU networks have no second derivative, so ReLUs are softened to softplus while this runs.
    It costs a forward pass, a forward and backward pass whose graph is kept, and some tens of
    backward passes through that graph (see ``iterations`` of the result). The vectors of the search
    take the memory of up to ``iterations`` inputs. Images do not influence each other, so a large
    batch can be cut.

    When not to use it: it looks at one point. The first order holds only as far as softened ReLUs
    and max pooling do not switch; on SqueezeNet at ``beta=30`` the map moved as fast as this says
    for steps of Euclidean length 1e-6, and at a fifth of it for 1e-4. How far an explanation moves
    within a radius is what an attack measures, and
    :func:`~captum_blackbox.fragility.curvature_plane.curvature_plane` shows.

    Args:
        model: Images → scores ``(N, classes)``, best logits. Runs in evaluation mode and is left
            as it was.
        inputs: Images ``(N, C, H, W)``, or a tuple of one such tensor. In half precision, images
            and weights are converted to float32 for this call.
        target: The class whose score is differentiated, in any of Captum's forms; ``None`` for the
            prediction of the network as it is.
        additional_forward_args: Passed to the model after the images.
        k: Number of eigenpairs.
        beta: Sharpness of the softened ReLUs, larger is closer to ReLU; a
            :class:`~captum_blackbox.fragility.RelativeBeta`, which is held fixed in the
            derivatives; ``None`` leaves them. The default is an absolute one, the same for every
            image, so that eigenvalues of images can be compared.
        iterations: Most products with the Hessian for an eigenpair.
        tolerance: Largest residual ``‖H v - λ v‖`` as a fraction of the largest eigenvalue.
        seed: For the start of the search and the random direction, which depend on it and on what
            the image shows, not on its batch.
        show_progress: Show a bar that counts products.

    Returns:
        Eigenvalues, eigenvectors, angles to the gradient and speeds; float32 (float64 for float64
        inputs) where they are pictures, float64 where they are numbers.

    Raises:
        InputError: An option cannot be used, the model gives no scores, or numbers are not finite.
        ShapeError: ``inputs`` is not one tensor of images.
        TargetError: ``target`` does not name one class per image.

    Warns:
        ExplanationWarning: An image has no curvature (a network of ReLUs that are not softened, a
            linear one) or no gradient, or a search has not converged.

    References:
        Ghorbani, Abid, Zou, "Interpretation of Neural Networks is Fragile", AAAI 2019, sec. 5. The
        search is Lanczos', for the eigenvalue of largest *absolute* value, on softened ReLUs.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> curvature = explanation_curvature(network, torch.rand(2, 3, 4, 4), beta=5.0)
        >>> curvature.eigenvectors.shape, bool((curvature.angles <= 90).all())
        (torch.Size([2, 1, 3, 4, 4]), True)
    """
    images, _ = one_tensor(inputs, "explanation_curvature")
    check_images(images)
    _check_options(k, iterations, tolerance, images[0].numel())
    with second_order(model, images, additional_forward_args) as (forward, images, extra):
        classes = _classes(forward, images, extra, target)
        own = generators(images, seed)
        signs = random_signs(own, images)
        starts = torch.stack([random_normals(own, images).flatten(1) for _ in range(k)], 1)
        with (
            softened(unwrapped(model), beta),
            tqdm(desc="curvature", unit="product", disable=not show_progress) as bar,
        ):
            hessian = InputHessian(forward, images, classes, extra)

            def product(vectors: Tensor) -> Tensor:
                bar.update()
                return hessian.product(vectors.view_as(images)).flatten(1)

            pairs = top_eigenpairs(product, starts, iterations=iterations, tolerance=tolerance)
            return _described(hessian, product, pairs, signs, classes, beta)


def _classes(
    forward: Callable[..., Any], images: Images, extra: tuple[Any, ...], target: Target
) -> Labels:
    with torch.no_grad():
        scores = class_scores(forward(images.clone(), *extra), len(images))
    if target is None:
        return scores.argmax(1)
    return class_targets(target, len(images), scores.shape[1], images.device)


def _described(
    hessian: InputHessian,
    product: Callable[[Tensor], Tensor],
    pairs: Eigenpairs,
    signs: Images,
    classes: Labels,
    beta: Sharpness | None,
) -> Curvature:
    gradient = hessian.gradients.flatten(1)
    flat = (pairs.values[:, 0] == 0).to(gradient.device)
    vectors = pairs.vectors.masked_fill(flat[:, None, None], 0)
    along_gradient = torch.einsum("nkd,nd->nk", vectors, gradient)
    vectors = torch.where(along_gradient[..., None] < 0, -vectors, vectors)
    directions: dict[Direction, Tensor] = {
        "fragile": vectors[:, 0],
        "gradient": _unit(gradient),
        "random": signs.flatten(1) / math.sqrt(gradient.shape[1]),
    }
    moved = {name: _movement(product, each, gradient) for name, each in directions.items()}
    moved_signs = {
        name: _movement(product, each.sign(), gradient) for name, each in directions.items()
    }
    curvature = Curvature(
        target=classes,
        scores=hessian.scores.double(),
        gradients=hessian.gradients,
        eigenvalues=pairs.values.to(gradient.device),
        eigenvectors=vectors.unflatten(2, hessian.gradients.shape[1:]),
        angles=_angles(vectors, gradient),
        residuals=pairs.residuals.to(gradient.device),
        converged=pairs.converged.to(gradient.device),
        iterations=pairs.steps.to(gradient.device),
        along=moved,
        along_signs=moved_signs,
        beta=beta,
    )
    _warn(curvature, flat)
    return curvature


def _movement(product: Callable[[Tensor], Tensor], direction: Tensor, gradient: Tensor) -> Movement:
    change = product(direction).double()
    unit = _unit(gradient.double())
    across = change - (change * unit).sum(1, keepdim=True) * unit
    score = (direction.double() * gradient.double()).sum(1).abs()
    return Movement(change.norm(dim=1), across.norm(dim=1), score)


def _angles(vectors: Tensor, gradient: Tensor) -> Tensor:
    """Return the angles ``(N, k)`` in degrees; exact also where they are near 0 or 90."""
    unit = _unit(gradient.double())[:, None]
    vectors = vectors.double()
    along = (vectors * unit).sum(2, keepdim=True)
    across = (vectors - along * unit).norm(dim=2)
    angles = torch.atan2(across, along[..., 0].abs()).rad2deg()
    undefined = (vectors == 0).all(2) | (unit == 0).all(2)
    return angles.masked_fill(undefined, math.nan)


def _unit(vectors: Tensor) -> Tensor:
    """Scale to length 1; 0 stays 0."""
    return torch.nn.functional.normalize(vectors, dim=1, eps=torch.finfo(vectors.dtype).tiny)


def _warn(curvature: Curvature, flat: Tensor) -> None:
    def first(wrong: Tensor) -> str | None:
        found = wrong.nonzero().flatten().tolist()
        return f"image {found[0]} ({len(found)} of {len(wrong)})" if found else None

    if image := first(flat):
        warn_user(
            f"the score of {image} has no second derivative: its gradient map does not move at "
            "all for small changes, so there is no fragile direction. Networks of ReLUs are such; "
            "soften them by beta, and see that they are modules (nn.ReLU)"
        )
    if image := first(curvature.gradient_norms == 0):
        warn_user(f"the gradient of {image} is 0 everywhere, so there is no angle to it")
    if image := first((~curvature.converged).any(1)):
        worst = (curvature.residuals / curvature.eigenvalues.abs()).nan_to_num().amax()
        warn_user(
            f"an eigenvector of {image} has not converged; the largest residual is {worst:.1g} of "
            "its eigenvalue. Allow more iterations, or a larger tolerance"
        )


def _check_options(k: int, iterations: int, tolerance: float, size: int) -> None:
    if not 1 <= k <= size:
        raise InputError(f"k lies between 1 and the {size} numbers of an image, got {k}")
    if iterations < 1:
        raise InputError(f"iterations must be at least 1, got {iterations}")
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance must lie in (0, 1), got {tolerance}")
