# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch import Tensor

from monai_anomaly.functional import feature_error, l1_error, l2_error, ssim_error, variance_weighted_error
from monai_anomaly.functional.errors import enlarged


def _pair(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """A smooth image in [-1, 1] and a disturbed copy."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(shape, generator=generator, dtype=dtype).cumsum(-1).cumsum(-2)
    image = image / image.abs().amax()
    noisy = (image + 0.2 * torch.randn(shape, generator=generator, dtype=dtype)).clamp(-1, 1)
    return noisy, image


@pytest.mark.parametrize("shape", [(2, 1, 5, 4), (2, 3, 4, 3, 2)])
def test_errors_pixel_by_pixel(shape: tuple[int, ...]) -> None:
    prediction, target = _pair(*shape, dtype=torch.float64)
    log_variance = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    maps = [
        l1_error(prediction, target),
        l2_error(prediction, target),
        variance_weighted_error(prediction, log_variance, target),
    ]
    assert all(m.shape == shape for m in maps)
    for position in np.ndindex(*shape):
        mu, x, s = float(prediction[position]), float(target[position]), float(log_variance[position])
        expected = [abs(x - mu), (x - mu) ** 2, (x - mu) ** 2 / math.exp(s)]
        assert [float(m[position]) for m in maps] == pytest.approx(expected, abs=1e-12)


def test_gradients() -> None:
    prediction, target = _pair(1, 1, 4, 4, dtype=torch.float64)
    p, x = prediction.requires_grad_(), target.requires_grad_()
    s = torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    (gradient,) = torch.autograd.grad(l1_error(p, x).sum(), p)
    torch.testing.assert_close(gradient, torch.sign(p - x).detach())
    (gradient,) = torch.autograd.grad(l2_error(p, x).sum(), x)
    torch.testing.assert_close(gradient, (2 * (x - p)).detach())
    by_mean, by_variance = torch.autograd.grad(variance_weighted_error(p, s, x).sum(), (p, s))
    torch.testing.assert_close(by_mean, (2 * (p - x) / s.exp()).detach())
    torch.testing.assert_close(by_variance, (-((p - x) ** 2) / s.exp()).detach())


def _window(size: int, sigma: float) -> list[float]:
    weights = [math.exp(-((i - size // 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return [w / sum(weights) for w in weights]


def slow_ssim(a: np.ndarray, b: np.ndarray, data_range: float, size: int, sigma: float) -> np.ndarray:
    """Similarity of every whole window of two images (*S), one window at a time, by Wang et al. 2004, Eq. 13."""
    line = np.array(_window(size, sigma))
    window = line
    for _ in range(a.ndim - 1):
        window = np.multiply.outer(window, line)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    shape = tuple(n - size + 1 for n in a.shape)
    result = np.empty(shape)
    for corner in np.ndindex(*shape):
        part = tuple(slice(c, c + size) for c in corner)
        x, y = a[part], b[part]
        mean_x, mean_y = (window * x).sum(), (window * y).sum()
        var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
        cov = (window * (x - mean_x) * (y - mean_y)).sum()
        result[corner] = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
        result[corner] /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return result


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0), (-1024.0, 3071.0)])
def test_ssim_is_that_of_scikit_image_on_images_that_begin_at_zero(value_range: tuple[float, float]) -> None:
    low, high = value_range
    prediction, target = ((image + 1) / 2 * (high - low) for image in _pair(2, 3, 30, 26))
    error = ssim_error(prediction + low, target + low, value_range=value_range)
    assert error.shape == prediction.shape
    for image, channel in np.ndindex(2, 3):
        _, similarity = structural_similarity(
            prediction[image, channel].double().numpy(),
            target[image, channel].double().numpy(),
            data_range=high - low,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        # at the border the two extend the image differently; MONAI computes in single precision
        np.testing.assert_allclose(error[image, channel, 5:-5, 5:-5], 1 - similarity[5:-5, 5:-5], atol=1e-4)


@pytest.mark.parametrize(("shape", "size", "sigma"), [((14, 13), 11, 1.5), ((9, 12), 5, 0.8), ((8, 7, 9), 5, 1.0)])
def test_ssim_window_by_window(shape: tuple[int, ...], size: int, sigma: float) -> None:
    prediction, target = _pair(1, 1, *shape, dtype=torch.float64)
    error = ssim_error(prediction, target, win_size=size, sigma=sigma)
    # every pixel has its window when both images are extended by reflection
    extended = [np.pad(image[0, 0].numpy(), size // 2, mode="reflect") for image in (prediction, target)]
    expected = 1 - slow_ssim(extended[0] + 1, extended[1] + 1, 2.0, size, sigma)
    np.testing.assert_allclose(error[0, 0], expected, atol=1e-4)
    assert float(error.min()) >= -1e-6 and float(error.max()) <= 2


def test_equal_and_opposite_images() -> None:
    _, image = _pair(1, 1, 20, 20)
    assert float(ssim_error(image, image).abs().max()) < 1e-5
    assert float(ssim_error(image, -image).amax()) > 1.5


@pytest.mark.parametrize("compat", [None, "medianomaly", "upd"])
def test_constants_differ_as_little_on_every_range(compat: str | None) -> None:
    pair = torch.full((1, 1, 16, 16), 0.48), torch.full((1, 1, 16, 16), 0.52)
    error = ssim_error(*pair, value_range=(0, 1), compat=compat)
    wanted = 1 - (2 * 0.48 * 0.52 + 1e-4) / (0.48**2 + 0.52**2 + 1e-4)  # no more than the luminance term, here 0.003
    if compat != "upd":
        torch.testing.assert_close(error, torch.full_like(error, wanted), atol=2e-5, rtol=0)  # single precision
    centered = ssim_error(*(2 * image - 1 for image in pair), compat=compat)  # the default range is [-1, 1]
    torch.testing.assert_close(centered, error, atol=2e-5, rtol=0)


@pytest.mark.parametrize("compat", [None, "medianomaly", "upd"])
def test_map_does_not_depend_on_the_range_of_the_images(compat: str | None) -> None:
    prediction, target = _pair(1, 2, 20, 18, seed=4)
    centered = ssim_error(prediction, target, compat=compat)
    scaled = [(image + 1) * 50 + 200 for image in (prediction, target)]
    torch.testing.assert_close(ssim_error(*scaled, value_range=(200, 300), compat=compat), centered, atol=2e-4, rtol=0)


@pytest.mark.parametrize("shape", [(20, 22), (12, 13, 14)])
def test_ssim_as_medianomaly_does(shape: tuple[int, ...]) -> None:
    prediction, target = _pair(1, 2, *shape, dtype=torch.float64)
    prediction = 1.3 * prediction  # leaves [-1, 1]
    error = ssim_error(prediction, target, compat="medianomaly")
    maps = []
    for channel in range(2):
        a, b = (((image[0, channel] + 1) / 2).clamp(0, 1).numpy() for image in (prediction, target))
        maps.append(torch.from_numpy(1 - slow_ssim(a, b, 1.0, 11, 1.5)))
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    expected = F.interpolate(torch.stack(maps)[None], size=shape, mode=mode, align_corners=False)
    assert tuple(maps[0].shape) == tuple(n - 10 for n in shape)
    # the similarity is computed in single precision
    torch.testing.assert_close(error.double(), expected, atol=1e-4, rtol=0)


def _restored(seed: int) -> tuple[Tensor, Tensor]:
    """A smooth image in [-1, 1] with fine texture, and a copy without its lesion and with another texture."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, 6, 6, generator=generator)
    image = 1.4 * F.interpolate(coarse, (64, 64), mode="bicubic", align_corners=False) - 0.7
    restored = image + 0.03 * torch.randn(image.shape, generator=generator)
    image = image + 0.03 * torch.randn(image.shape, generator=generator)
    image[..., 20:34, 30:42] += 0.5
    return restored.clamp(-1, 1), image.clamp(-1, 1)


def _blurred(image: np.ndarray) -> np.ndarray:
    """What an 11 x 11 Gaussian window of width 1.5 sees around every pixel, zeros outside."""
    window = np.outer(_window(11, 1.5), _window(11, 1.5))
    extended = np.pad(image, 5)
    result = np.empty_like(image)
    for i, j in np.ndindex(*image.shape):
        result[i, j] = (window * extended[i : i + 11, j : j + 11]).sum()
    return result


@pytest.mark.parametrize("seed", [0, 2])
def test_published_ssim_map_is_the_square_of_the_blurred_difference(seed: int) -> None:
    restored, image = _restored(seed)
    published = ssim_error(restored, image, compat="upd")[0, 0].double().numpy()
    difference = ((restored - image) / 2)[0, 0].double().numpy()  # of images in [0, 1]
    mean, mean_square = _blurred(difference), _blurred(difference**2)
    expected = mean**2 / 6.5025 + (mean_square - mean**2) / 58.5225
    np.testing.assert_allclose(published, expected, rtol=0.25, atol=2e-6)  # but for the means below the line
    assert published.min() >= 0 and published.max() < 0.012
    structural = ssim_error(restored, image)[0, 0].double().numpy()
    by_square = [np.corrcoef(values.ravel(), (mean**2).ravel())[0, 1] for values in (published, structural)]
    assert by_square[0] > 0.99 and by_square[1] < 0.8


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (-2.0, 2.0), (0.0, 2.0)])
def test_published_ssim_map_window_by_window(value_range: tuple[float, float]) -> None:
    low, high = value_range
    pair = [(image + 1) / 2 for image in _pair(1, 2, 13, 12, dtype=torch.float64)]
    prediction, target = (image * (high - low) + low for image in pair)
    error = ssim_error(prediction, target, value_range=value_range, compat="upd")
    for channel in range(2):
        # brought to [0, 1], zeros around, but the constants of images in [0, 255]
        images = [np.pad(image[0, channel].numpy(), 5) for image in pair]
        expected = np.clip(1 - slow_ssim(images[0], images[1], 255.0, 11, 1.5), 0, 1)
        np.testing.assert_allclose(error[0, channel], expected, atol=1e-6)


def test_features_are_compared_place_by_place() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, target = ([torch.randn(2, c, 3, 4, generator=generator) for c in (5, 2)] for _ in range(2))
    error = feature_error(prediction, target, (3, 4))
    assert error.shape == (2, 1, 3, 4)
    for image, i, j in np.ndindex(2, 3, 4):
        angles = []
        for a, b in zip(prediction, target, strict=True):
            u, v = a[image, :, i, j].tolist(), b[image, :, i, j].tolist()
            angles.append(sum(map(math.prod, zip(u, v, strict=True))) / math.hypot(*u) / math.hypot(*v))
        assert float(error[image, 0, i, j]) == pytest.approx(1 - sum(angles) / 2, abs=1e-5)


@pytest.mark.parametrize("size", [(8, 6), (4, 6, 8)])
def test_features_of_coarser_layers_are_stretched(size: tuple[int, ...]) -> None:
    half = tuple(n // 2 for n in size)
    target = torch.zeros(1, 2, *half)
    target[:, 0] = 1
    prediction = target.flip(1)
    prediction[:, :, 0] = 3 * target[:, :, 0]  # the first rows agree but for their length, the others are orthogonal
    error = feature_error([prediction], [target], size)[0, 0]
    along = error.reshape(size[0], -1)
    assert torch.equal(along, along[:, :1].expand_as(along)) and error.shape == size
    torch.testing.assert_close(along[:3, 0], torch.tensor([0.0, 0.25, 0.75]))
    torch.testing.assert_close(along[3:, 0], torch.ones(size[0] - 3))


@pytest.mark.parametrize("compat", [None, "medianomaly"])
def test_ssim_gradient(compat: str | None) -> None:
    prediction, target = (0.9 * image for image in _pair(1, 1, 7, 6, dtype=torch.float64))

    weights = torch.rand(1, 1, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    prediction, target = prediction.requires_grad_(), target.requires_grad_()
    error = ssim_error(prediction, target, win_size=5, sigma=1.0, compat=compat)
    gradients = torch.autograd.grad((weights * error).sum(), (prediction, target))

    x, y = prediction + 1, target + 1
    if compat is None:
        x, y = (F.pad(image, (2, 2, 2, 2), mode="reflect") for image in (x, y))
    line = torch.tensor(_window(5, 1.0), dtype=torch.float64)
    window = torch.outer(line, line).flatten()[:, None]
    x, y = F.unfold(x, 5), F.unfold(y, 5)  # (1, 25, windows)
    mean_x, mean_y = ((window * v).sum(1, keepdim=True) for v in (x, y))
    var_x, var_y = (window * (x - mean_x) ** 2).sum(1), (window * (y - mean_y) ** 2).sum(1)
    cov = (window * (x - mean_x) * (y - mean_y)).sum(1)
    mean_x, mean_y = mean_x[:, 0], mean_y[:, 0]
    similarity = (2 * mean_x * mean_y + 0.02**2) * (2 * cov + 0.06**2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + 0.02**2) * (var_x + var_y + 0.06**2))
    expected = 1 - similarity.reshape(1, 1, *([7, 6] if compat is None else [3, 2]))
    expected = F.interpolate(expected, size=(7, 6), mode="bilinear", align_corners=False)
    for gradient, reference in zip(
        gradients, torch.autograd.grad((weights * expected).sum(), (prediction, target)), strict=True
    ):
        torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-3 * float(reference.abs().max()))


@pytest.mark.parametrize(("coarse", "size"), [((2, 3), (4, 9)), ((2, 2, 2), (4, 3, 2)), ((3, 2), (3, 2))])
def test_enlarged_is_linear_between_the_centers(coarse: tuple[int, ...], size: tuple[int, ...]) -> None:
    values = torch.rand(2, 1, *coarse, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result = enlarged(values, size)
    assert result.shape == (2, 1, *size)
    expected = values.numpy()
    for axis, (old, new) in enumerate(zip(coarse, size, strict=True), start=2):
        centers = (np.arange(new) + 0.5) * old / new - 0.5
        expected = np.apply_along_axis(lambda line, c=centers: np.interp(c, np.arange(len(line)), line), axis, expected)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-12)


def test_wrong_arguments() -> None:
    image = torch.rand(1, 1, 16, 16)
    with pytest.raises(ValueError, match="'kornia'"):
        ssim_error(image, image, compat="kornia")
    with pytest.raises(ValueError, match="odd and at most the image size \\(16, 16\\), got 17"):
        ssim_error(image, image, win_size=17)
    with pytest.raises(ValueError, match="got 10"):
        ssim_error(image, image, win_size=10)
    for wrong in [(1, 0), (0, 0), (0, float("inf")), (0, 1, 2)]:
        with pytest.raises(ValueError, match="value_range must be two finite numbers, low < high"):
            ssim_error(image, image, value_range=wrong)
