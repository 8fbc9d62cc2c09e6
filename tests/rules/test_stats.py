"""The statistics agree with scipy and are valid: an e-value's expectation under the null is at most 1."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from rollout_app.engine.stats import deff, mixture, paired, rates, ratios, srm
from rollout_app.engine.stats.combine import log_sum_exp

SMALL = st.integers(1, 60)


@given(SMALL, SMALL, st.data(), st.sampled_from([0.65, 0.8, 1.1, 2.0, 25.0]))
def test_it_sums_the_hypergeometric_as_scipy_does(nt: int, nc: int, data: st.DataObject, psi: float) -> None:
    xt, xc = data.draw(st.integers(0, nt)), data.draw(st.integers(0, nc))
    [llr] = rates.stratum_llrs(nt, xt, nc, xc, [psi])
    bad = xt + xc
    h = stats.hypergeom(nt + nc, bad, nt)
    expected = xt * math.log(psi) - math.log(sum(h.pmf(j) * psi**j for j in range(min(bad, nt) + 1)))
    assert llr == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("n", [10_000, 100_000])
@pytest.mark.parametrize("psi", [0.65, 1.2, 6.0, 25.0])
def test_it_sums_large_strata(n: int, psi: float) -> None:
    nt, xt, xc = n // 4, n // 50, n // 20
    [llr] = rates.stratum_llrs(nt, xt, n, xc, [psi])
    j = np.arange(0, min(xt + xc, nt) + 1)
    terms = stats.hypergeom(n + nt, xt + xc, nt).logpmf(j) + j * math.log(psi)
    assert llr == pytest.approx(xt * math.log(psi) - special.logsumexp(terms), abs=1e-5)


@pytest.mark.parametrize("strata", [(32, 5, 10**7, 10**7 - 1), (10**7, 10**7 - 1, 32, 5), (32, 32, 10**7, 0)])
def test_it_neither_overflows_nor_underflows(strata: tuple[int, int, int, int]) -> None:
    psis = [psi for psi, _ in (*rates.HARM_GRID, *rates.SAFE_GRID)]
    assert all(math.isfinite(llr) for llr in rates.stratum_llrs(*strata, psis))


@pytest.mark.parametrize(("nt", "nc", "bad"), [(1, 9, 3), (7, 5, 4), (20, 20, 6)])
def test_its_harm_is_an_e_value(nt: int, nc: int, bad: int) -> None:
    """Given the number of bad tasks, each likelihood ratio has an expectation of exactly 1 if the arms are equal."""
    h = stats.hypergeom(nt + nc, bad, nt)
    total = 0.0
    for x in range(max(0, bad - nc), min(bad, nt) + 1):
        psis = [psi for psi, _ in rates.HARM_GRID]
        llr = rates.stratum_llrs(nt, x, nc, bad - x, psis)
        total += h.pmf(x) * math.exp(rates.harm_above(psis, llr, 1.0))
    assert total == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("nt", "nc", "bad"), [(12, 18, 8), (40, 40, 12), (30, 200, 50)])
@pytest.mark.parametrize("null", [1.05, 1.3, 1.43, 2.5])
def test_its_harm_is_an_e_value_against_a_greater_odds_ratio(nt: int, nc: int, bad: int, null: float) -> None:
    """Between grid points the log likelihood ratio is interpolated by a cubic; the expectation is 1 within 2 %."""
    h = stats.nchypergeom_fisher(nt + nc, bad, nt, null)
    psis = [psi for psi, _ in (*rates.HARM_GRID, *rates.SAFE_GRID)]
    total = 0.0
    for x in range(max(0, bad - nc), min(bad, nt) + 1):
        llr = rates.stratum_llrs(nt, x, nc, bad - x, psis)
        total += h.pmf(x) * math.exp(rates.harm_above(psis, llr, null))
    assert total == pytest.approx(1, abs=0.02)
    assert rates.harm_above(psis, [0.0] * len(psis), 30.0) == 0


@pytest.mark.parametrize("psi", [0.7, 1.03, 1.15, 1.278, 1.4, 1.8, 2.7, 4.0])
def test_it_interpolates_the_log_likelihood_ratio(psi: float) -> None:
    psis = [psi for psi, _ in (*rates.HARM_GRID, *rates.SAFE_GRID)]
    counts = 300, 31, 2_700, 210
    llr = rates.stratum_llrs(*counts, psis)
    [exact] = rates.stratum_llrs(*counts, [psi])
    assert rates.log_ratio_at(psis, llr, psi) == pytest.approx(exact, abs=(1e-4 if psi < 3 else 3e-3) * 31)
    assert rates.log_ratio_at(psis, llr, 1.0) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("margin", "true"), [(1.5, 1.5), (1.5, 2.0), (1.5, 4.0), (12.0, 12.0), (12.0, 30.0)])
def test_its_safe_is_an_e_value(margin: float, true: float) -> None:
    """The expectation is 1 at the margin, and lower for greater harm."""
    nt, nc, bad = 12, 18, 8
    h = stats.nchypergeom_fisher(nt + nc, bad, nt, true)
    places, log_weights = rates.safe_alternatives(margin)
    psis = [*rates.HARM_PSIS, *rates.SAFE_PSIS, margin]
    assert {psis[place] for place in places} == {
        *rates.SAFE_PSIS,
        *([1.5, 2.0, 3.0, 6.0] if margin == 12 else []),
    }
    total = 0.0
    for x in range(bad + 1):
        llr = rates.stratum_llrs(nt, x, nc, bad - x, psis)
        e = rates.log_mixture([llr[place] - llr[-1] for place in places], log_weights)
        total += h.pmf(x) * math.exp(e)
    assert total == pytest.approx(1, abs=1e-9) if true == margin else total < 1


@pytest.mark.parametrize(("bound", "expected"), [(0.1, 0.02), (0.1, 0.3), (0.02, 0.0)])
def test_its_one_arm_tests_are_e_values_at_the_bound(bound: float, expected: float) -> None:
    n = 40
    binomial = stats.binom(n, bound)
    safe = sum(binomial.pmf(x) * math.exp(rates.log_e_alone(n, x, bound, expected)) for x in range(n + 1))
    harm = sum(binomial.pmf(x) * math.exp(rates.log_e_above(n, x, bound)) for x in range(n + 1))
    assert (safe, harm) == (pytest.approx(1), pytest.approx(1))


@pytest.mark.parametrize("x", [-1e-300, -1e-9, -0.01, -0.2, -0.3, -0.3678])
def test_it_inverts_lambert_as_scipy_does(x: float) -> None:
    assert mixture._lambert_w_minus_1(x) == pytest.approx(special.lambertw(x, -1).real, rel=1e-9)


@pytest.mark.parametrize("z", [-400, -38, -30.001, -29.999, -5, -1, 0, 1, 8, 40])
def test_it_takes_the_normal_tail_without_underflow(z: float) -> None:
    assert mixture.log_phi(z) == pytest.approx(special.log_ndtr(z), rel=1e-8, abs=1e-300)


@pytest.mark.parametrize("margin", [0.02, 0.1, 0.2])
def test_its_mirror_tests_are_e_values(margin: float) -> None:
    """Worst cases of each null: a fair coin among the discordant; a mean loss of exactly the margin."""
    pairs = stats.binom(30, 0.5)
    worse = sum(pairs.pmf(b) * math.exp(paired.log_e_worse(b, 30 - b)) for b in range(31))
    assert worse == pytest.approx(1)
    n, won = 12, 0.1
    lost = won + margin
    total = 0.0
    for b, c in itertools.product(range(n + 1), repeat=2):
        if b + c <= n:
            chance = stats.multinomial(n, [lost, won, 1 - lost - won]).pmf([b, c, n - b - c])
            total += chance * math.exp(paired.log_e_not_worse(n, b, c, margin))
    assert total == pytest.approx(1)


def test_it_needs_more_evidence_from_correlated_units() -> None:
    rng = np.random.default_rng(1)
    independent = [(100, int(x)) for x in rng.binomial(100, 0.1, 32)]
    together = [(100, int(10 * x)) for x in rng.binomial(10, 0.1, 32)]
    assert 1 <= deff.design_effect(independent) < 2
    assert 5 < deff.design_effect(together) < 16
    assert deff.design_effect([]) == deff.design_effect([(5, 0), (5, 0)]) == 1


def test_the_share_of_tasks_may_vary_with_few_tenants() -> None:
    tenants = [1_000 if i % 4 else 6_000 for i in range(32)]
    spread = deff.unit_spread(tenants)
    assert spread > 0.01
    assert deff.unit_spread([30, 31, 29, 30] * 8) == 0
    off = [(0.5, 5_600, 4_400)]
    assert srm.log_e_srm(off) >= srm.LOG_MISMATCH > srm.log_e_srm(off, spread)


@settings(max_examples=50)
@given(st.lists(st.floats(-700, 700), min_size=1, max_size=20))
def test_it_adds_exponentials_without_overflow(values: list[float]) -> None:
    assert log_sum_exp(values) == pytest.approx(special.logsumexp(values))


def test_it_has_no_evidence_without_success() -> None:
    none = ratios.Moments(n=200, y=2000, d=0, yy=20_000)
    assert none.ratio is None and none.relative_variance is None
    assert ratios.contrast(none, none) == ratios.Contrast()
    assert ratios.squared_errors(ratios.contrast(none, none), none, none, 1) is None


def test_constant_costs_have_a_minimum_variance() -> None:
    """Without a minimum, there would be no evidence, or only rounding errors."""
    flat = ratios.Moments(n=200, y=2000, d=200, yy=20_000, yd=2000, dd=200)
    errors = ratios.squared_errors(ratios.contrast(flat, flat), flat, flat, 1)
    assert errors == pytest.approx((2 * 200 / 200 / 200**2, 2 * 200 / 200 / 200**2))


@given(SMALL, SMALL, st.data())
def test_its_harm_never_claims_more_than_fisher_s_exact_test(nt: int, nc: int, data: st.DataObject) -> None:
    """E grows with the candidate's bad tasks, so by Markov's inequality a single look's p-value is at most 1/E."""
    xt, xc = data.draw(st.integers(0, nt)), data.draw(st.integers(0, nc))
    llr = rates.stratum_llrs(nt, xt, nc, xc, rates.HARM_PSIS)
    p = stats.fisher_exact([[xt, nt - xt], [xc, nc - xc]], alternative="greater").pvalue
    assert p <= math.exp(-rates.harm_above(rates.HARM_PSIS, llr, 1.0)) * (1 + 1e-9)


@given(st.integers(0, 80), st.integers(0, 80))
def test_its_mirror_never_claims_more_than_mcnemar_s_exact_test(lost: int, won: int) -> None:
    p = stats.binomtest(lost, lost + won, 0.5, alternative="greater").pvalue if lost + won else 1.0
    assert p <= math.exp(-paired.log_e_worse(lost, won)) * (1 + 1e-9)


@pytest.mark.parametrize(("s", "v", "rho"), [(0.0, 10.0, 3.0), (25.0, 40.0, 8.0), (-12.0, 30.0, 5.0)])
def test_its_normal_mixture_is_the_integral_over_positive_drifts(s: float, v: float, rho: float) -> None:
    """E is the average of exp(drift s - drift² v / 2) over a half-normal drift with variance 1 / rho."""
    half_normal = stats.halfnorm(scale=1 / math.sqrt(rho))
    averaged, _ = integrate.quad(
        lambda drift: half_normal.pdf(drift) * math.exp(drift * s - drift**2 * v / 2), 0, 8
    )
    assert mixture.log_e_normal(s, v, rho) == pytest.approx(math.log(averaged), abs=1e-6)


@pytest.mark.parametrize(("share", "nt", "nc"), [(0.05, 40, 1_000), (0.5, 700, 300), (0.95, 5_000, 260)])
def test_its_share_test_is_a_beta_binomial_against_a_binomial(share: float, nt: int, nc: int) -> None:
    mixed = stats.betabinom(nt + nc, srm.KAPPA * share, srm.KAPPA * (1 - share)).logpmf(nt)
    assert srm.log_e_srm([(share, nt, nc)]) == pytest.approx(
        mixed - stats.binom(nt + nc, share).logpmf(nt), abs=1e-6
    )


def test_its_design_effect_is_pearson_s_dispersion() -> None:
    rng = np.random.default_rng(3)
    n = rng.integers(50, 150, 32)
    x = rng.binomial(n, rng.beta(2, 18, 32))
    pearson = stats.chi2_contingency([x, n - x], correction=False).statistic
    groups = [(int(tasks), int(bad)) for tasks, bad in zip(n, x, strict=True)]
    assert deff.design_effect(groups) == pytest.approx(pearson / 31)


def test_its_ratio_variance_is_that_of_the_residuals() -> None:
    """The variance by the delta method, computed from sums, is that of y - R d."""
    rng = np.random.default_rng(4)
    d = rng.random(500) < 0.8
    y = rng.lognormal(0, 1, 500) * (1 + d)
    seen = ratios.Moments(500, y.sum(), int(d.sum()), (y * y).sum(), (y * d).sum(), int(d.sum()))
    ratio = y.sum() / d.sum()
    assert seen.relative_variance == pytest.approx(np.var(y - ratio * d, ddof=1) / ratio**2)
    error = stats.sem(y - ratio * d) / y.mean()
    assert seen.squared_error == pytest.approx(error**2)
