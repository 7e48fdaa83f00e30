"""The search finds the eigenpairs that a dense solver finds, for every kind of spectrum."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_blackbox.errors import InputError
from captum_blackbox.fragility.lanczos import top_eigenpairs


def with_spectrum(*spectra, seed=0):
    """Symmetric matrices ``(N, D, D)`` with these eigenvalues and random eigenvectors."""
    values = torch.tensor(spectra, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(*values.shape, values.shape[1], generator=generator, dtype=torch.float64)
    vectors = torch.linalg.qr(random).Q
    return vectors @ torch.diag_embed(values) @ vectors.mT


def found(matrices, k, *, iterations=1000, tolerance=1e-10, seed=1):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(k, matrices.shape[1], generator=generator) for _ in matrices]
    return top_eigenpairs(
        lambda v: torch.einsum("nij,nj->ni", matrices, v),
        torch.stack(rows).to(matrices.dtype),
        iterations=iterations,
        tolerance=tolerance,
    )


def largest(matrices, k):
    """By the dense solver, the largest absolute value first."""
    values = torch.linalg.eigvalsh(matrices)
    order = values.abs().argsort(dim=1, descending=True)[:, :k]
    return values.gather(1, order)


SPECTRA = {
    "negative is largest": [-7.0, 5.0, 1.0, 0.5, -0.1, 0.0],
    "repeated": [4.0, 4.0, 4.0, -2.0, 1.0, 0.0],
    "repeated with both signs": [-3.0, -3.0, 2.0, 2.0, 0.0, 0.0],
    "multiple of the identity": [2.0, 2.0, 2.0, 2.0, 2.0, 2.0],
    "rank one": [-9.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    "nothing": [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    "close together": [5.0, 4.999, 4.998, -4.997, 1.0, 1.0],
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("k", [1, 3, 6])
def test_pairs_equal_those_of_the_dense_solver(name, k):
    matrices = with_spectrum(SPECTRA[name])
    pairs = found(matrices, k)
    torch.testing.assert_close(pairs.values, largest(matrices, k), rtol=0, atol=1e-9)
    assert pairs.converged.all()
    products = torch.einsum("nij,nkj->nki", matrices, pairs.vectors)
    torch.testing.assert_close(products, pairs.values[..., None] * pairs.vectors, rtol=0, atol=1e-8)
    gram = pairs.vectors @ pairs.vectors.mT
    torch.testing.assert_close(gram, torch.eye(k).double()[None], rtol=0, atol=1e-9)


@given(
    st.lists(st.floats(-10, 10), min_size=2, max_size=12),
    st.integers(1, 3),
    st.integers(0, 1000),
)
def test_any_spectrum(spectrum, k, seed):
    k = min(k, len(spectrum))
    matrices = with_spectrum(spectrum, seed=seed)
    pairs = found(matrices, k, seed=seed + 1)
    expected = largest(matrices, k)
    # Of two eigenvalues ±λ that agree to rounding either may come first.
    torch.testing.assert_close(pairs.values.abs(), expected.abs(), rtol=1e-7, atol=1e-7)
    assert (pairs.residuals <= 1e-7).all()


def test_the_residual_bounds_the_error_of_an_unfinished_search():
    matrices = with_spectrum([1 - i / 200 for i in range(200)])
    pairs = found(matrices, 1, iterations=8)
    assert pairs.steps.tolist() == [[8]]
    assert pairs.converged.tolist() == [[False]]
    vector, value = pairs.vectors[0, 0], pairs.values[0, 0]
    residual = (matrices[0] @ vector - value * vector).norm()
    torch.testing.assert_close(pairs.residuals[0, 0], residual)
    distance = (torch.linalg.eigvalsh(matrices[0]) - value).abs().amin()
    assert 1e-6 < distance <= residual
    assert 0.05 * value > residual > 1e-3  # near, and not there


def test_a_search_ends_when_the_tolerance_is_met():
    matrices = with_spectrum([10.0, -8.0, *[i / 100 for i in range(98)]])
    rough, fine = (found(matrices, 1, tolerance=each) for each in (1e-2, 1e-8))
    assert rough.steps < fine.steps < 40
    for pairs, tolerance in ((rough, 1e-2), (fine, 1e-8)):
        assert pairs.converged.all()
        assert pairs.residuals <= 10 * tolerance
        # The error of the eigenvalue is of second order in the residual.
        assert (pairs.values - 10).abs() <= 1e-13 + (10 * tolerance) ** 2


def test_the_other_end_of_the_spectrum_is_not_overlooked():
    # The positive end stands alone and converges at once; the negative one is larger, but crowded.
    crowd = [-1.05 + 0.004 * i for i in range(200)]
    matrices = with_spectrum([1.0, *crowd])
    for seed in range(20):
        pairs = found(matrices, 1, tolerance=1e-2, seed=seed)
        assert pairs.values < 0


def test_matrices_do_not_influence_each_other():
    matrices = torch.cat(
        [with_spectrum([3.0, -2.0, 1.0, 0.5]), with_spectrum([0.0] * 4), with_spectrum([1.0] * 4)]
    )
    starts = torch.randn(3, 2, 4, dtype=torch.float64)

    def run(rows):
        some = matrices[rows]
        product = lambda v: torch.einsum("nij,nj->ni", some, v)  # noqa: E731
        return top_eigenpairs(product, starts[rows], iterations=9, tolerance=1e-9)

    together = run([0, 1, 2])
    for i in range(3):
        for a, b in zip(together, run([i]), strict=True):
            torch.testing.assert_close(a[i : i + 1], b, rtol=1e-12, atol=1e-12)


def test_float32_is_exact_to_its_digits():
    matrices = with_spectrum([-6.0, 5.0, *[i / 50 for i in range(50)]])
    pairs = found(matrices.float(), 2, tolerance=1e-30)
    assert pairs.converged.all()
    assert (pairs.steps < 20).all()  # more products could not make it better
    torch.testing.assert_close(pairs.values, largest(matrices, 2), rtol=1e-6, atol=0)


def test_a_small_eigenvalue_is_as_exact_as_the_largest_asks_for():
    matrices = with_spectrum([1.0, *[i * 1e-6 for i in range(50)]])
    pairs = found(matrices, 2, tolerance=1e-3)
    assert pairs.steps[0, 1] == 1
    assert pairs.converged.all()


def test_a_product_that_is_no_number_is_refused():
    matrices = torch.cat([with_spectrum([1.0, 2.0]), torch.full((1, 2, 2), torch.nan).double()])
    with pytest.raises(
        InputError, match=r"second derivatives of image 1 are not finite in torch.f"
    ):
        found(matrices, 1)
