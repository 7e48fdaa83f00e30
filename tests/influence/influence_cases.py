"""Small networks with their training points, and influence as it is defined."""

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F


class SmallNet(nn.Module):
    """A convolution, batch normalization, dropout and an in-place ReLU below a linear layer."""

    def __init__(self, classes=3, smooth=False):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.activation = nn.Tanh() if smooth else nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(8, classes)

    def forward(self, images):
        maps = self.activation(self.norm(self.conv(images)))
        return self.linear(self.dropout(maps.flatten(1)))


def small_case(seed=0, count=12, smooth=False, dtype=torch.float64):
    """A network with its own statistics, training points, and three test images."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SmallNet(smooth=smooth).to(dtype)
    model.norm.running_mean.copy_(drawn(2))
    model.norm.running_var.copy_(drawn(2) ** 2 + 0.5)
    data = [(drawn(1, 4, 4), number % 3) for number in range(count)]
    return model.eval(), data, drawn(3, 1, 4, 4)


def softmax_case(seed=0, count=40, reg=0.05):
    """Softmax regression at its minimum, by Newton's method, and its training points."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    targets = (inputs[:, 0] + inputs[:, 1] * torch.randn(count, generator=generator) > 0).long()
    model = nn.Linear(4, 2, dtype=torch.float64)
    return fitted(model, inputs, targets, reg), inputs, targets


def fitted(model, inputs, targets, reg):
    """Minimise the mean cross-entropy plus half of ``reg`` times the squared length of weights."""
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=500, tolerance_grad=1e-12, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        length = sum((parameter**2).sum() for parameter in model.parameters())
        loss = F.cross_entropy(model(inputs), targets) + reg / 2 * length
        loss.backward()
        return loss

    optimizer.step(closure)
    optimizer.zero_grad()
    return model


def flat(model, names=None):
    """Return some parameters as one vector, and a function of it that returns outputs."""
    kept = {n: p.detach().clone() for n, p in model.named_parameters()}
    names = list(kept) if names is None else names

    def outputs(vector, inputs):
        parts = vector.split([kept[name].numel() for name in names])
        own = {n: part.view_as(kept[n]) for n, part in zip(names, parts, strict=True)}
        return functional_call(model, kept | own, (inputs,))

    return torch.cat([kept[name].flatten() for name in names]), outputs


def naive_hessian(model, data, names=None, loss=F.cross_entropy):
    """The second derivative of the mean training loss, all at once."""
    vector, outputs = flat(model, names)
    inputs = torch.stack([x for x, _ in data])
    targets = torch.stack([torch.as_tensor(t) for _, t in data])
    return torch.autograd.functional.hessian(lambda v: loss(outputs(v, inputs), targets), vector)


def naive_gauss_newton(model, data, names=None):
    """The sum over the points of Jᵀ (diag(p) - p pᵀ) J, over their number."""
    vector, outputs = flat(model, names)
    total = 0
    for x, _ in data:
        jacobian = torch.autograd.functional.jacobian(lambda v, x=x: outputs(v, x[None])[0], vector)
        p = outputs(vector, x[None])[0].softmax(0)
        total = total + jacobian.T @ (p.diag() - p[:, None] * p) @ jacobian
    return total / len(data)


def naive_gradient(model, x, target, names=None, loss=F.cross_entropy):
    """The gradient of the loss at one point."""
    vector, outputs = flat(model, names)
    vector.requires_grad_()
    value = loss(outputs(vector, x[None]), torch.as_tensor(target)[None])
    return torch.autograd.grad(value, vector)[0]


def naive_influence(model, data, tests, targets, hessian, reg, names=None):
    """``gₜᵀ (H + reg I)⁻¹ gᵢ / n``, pair by pair."""
    inverse = torch.linalg.inv(hessian + reg * torch.eye(len(hessian), dtype=hessian.dtype))
    rows = []
    for x, target in zip(tests, targets, strict=True):
        at_test = naive_gradient(model, x, target, names)
        rows.append(
            [at_test @ inverse @ naive_gradient(model, z, t, names) / len(data) for z, t in data]
        )
    return torch.tensor(rows, dtype=torch.float64)


def half_square(outputs, targets):
    """Half of the squared error, point by point."""
    return (outputs - targets).square().sum(1) / 2
