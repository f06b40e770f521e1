import numpy as np
import pytest

from gomin_client.sampling.noise import NoiseField


@pytest.mark.parametrize(("first", "length"), [(0, 1), (1, 7), (3, 1000), (255, 256), (4096, 513), (10**12, 5)])
def test_noise_does_not_depend_on_the_window(first: int, length: int) -> None:
    margin = 5 if first >= 5 else first
    wide = NoiseField([7], length + margin + 9, [first - margin])(draw=3)

    window = NoiseField([7], length, [first])(draw=3)

    np.testing.assert_array_equal(window, wide[..., margin : margin + length])


def test_noise_does_not_depend_on_the_batch() -> None:
    batch = NoiseField([1, 2, 3], 100, [0, 50, 7])(draw=2)

    np.testing.assert_array_equal(batch[1:2], NoiseField([2], 100, [50])(draw=2))
    assert batch.dtype == np.float32


def test_noise_differs_by_seed_draw_and_sample() -> None:
    base = NoiseField([1], 1000)(draw=0)

    for other in (NoiseField([2], 1000)(0), NoiseField([1], 1000)(1), NoiseField([1], 1000, [1000])(0)):
        assert abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < 0.15


def test_noise_is_standard_normal() -> None:
    from scipy.stats import kstest

    noise = NoiseField([123], 400_000)(draw=0).ravel().astype(np.float64)

    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert abs((noise**3).mean()) < 0.03
    assert abs((noise**4).mean() - 3) < 0.05
    assert kstest(noise, "norm").pvalue > 0.001
    spectrum = np.abs(np.fft.rfft(noise, 2 * len(noise))) ** 2
    autocorrelation = np.fft.irfft(spectrum)[1:5000] / np.square(noise).sum()
    assert np.abs(autocorrelation).max() < 5 / np.sqrt(len(noise))


def test_draws_and_seeds_are_independent_of_each_other() -> None:
    from scipy.stats import kstest

    fields = np.concatenate(
        [NoiseField([seed, seed + 1], 100_000)(draw)[:, 0] for seed in (0, 2) for draw in (0, 1, 49)]
    )

    assert kstest(fields.sum(axis=0) / np.sqrt(len(fields)), "norm").pvalue > 0.001
    correlation = np.corrcoef(fields) - np.eye(len(fields))
    assert np.abs(correlation).max() < 5 / np.sqrt(100_000)


def test_noise_is_the_same_in_every_release() -> None:
    """A stored vector: a seed that someone wrote down must make the same sound for good."""
    expected = np.array(STORED, dtype=np.float32)

    np.testing.assert_array_equal(NoiseField([2**64 - 1], 6, [9])(draw=48)[0, 0], expected)


STORED = [
    -1.1099296808242798,
    0.626227617263794,
    -0.6200957894325256,
    1.6323002576828003,
    0.061453040689229965,
    -0.5451382398605347,
]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range_are_errors(seed: int) -> None:
    with pytest.raises(ValueError, match="seed"):
        NoiseField([seed], 10)


def test_a_first_sample_for_each_seed() -> None:
    with pytest.raises(ValueError, match="2 seeds, but 1 first samples"):
        NoiseField([1, 2], 10, [0])
    with pytest.raises(ValueError, match="first sample -4"):
        NoiseField([1], 10, [-4])


def test_first_samples_end_at_2_to_the_62() -> None:
    last = NoiseField([1], 4, [2**62 - 1])

    assert np.isfinite(last(draw=1)).all()
    for first in (2**62, 2**63 - 1):
        with pytest.raises(ValueError, match=f"first sample {first} out of range; expected 0 … 2\\*\\*62 - 1"):
            NoiseField([1], 4, [first])
