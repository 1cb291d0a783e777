"""Small evaluations of a phantom head, as `rebrain-train evaluate` hands them to the report."""

from __future__ import annotations

import numpy as np
from scipy import ndimage as ndi

from trainer.evaluate.results import Evaluation, Montage

METHODS = {
    "constant": 0.0, "identity": 0.2, "lut": 0.35, "linear-lut": 0.4, "bridge-average": 0.7,
    "bridge-linear": 0.75, "bridge-slerp": 0.72, "raw": 0.65, "raw-average": 0.6, "rebrain": 0.8,
}  # fmt: skip
PAIR_METRICS = {
    "slice_id_exact": 0.0, "slice_id_within_one": 0.2, "brain_correlation": 0.0, "lncc": -0.3,
    "gradient_correlation": -0.4, "nmi": 1.0, "ssim_brain": 0.0, "psnr_brain": 14.0,
}  # fmt: skip
IMAGE_METRICS = {"nrmse": 0.3, "psnr": 12.0, "ssim": 0.1, "mae": 0.2, "spectrum_error": 8.0}
_FALLING = ("nrmse", "mae", "spectrum_error")


def _figure(values):
    per_subject = {name: float(value) for name, value in values.items()}
    mean, sd = float(np.mean(list(values.values()))), float(np.std(list(values.values())))
    return {"mean": mean, "ci95": [mean - sd, mean + sd], "sd": sd, "per_subject": per_subject}


def _metrics(quality, subjects, volumetric, sparse):
    generator = np.random.default_rng(7)
    wanted = dict(IMAGE_METRICS)
    if sparse:
        wanted |= {f"{n}_{p}": v for n, v in IMAGE_METRICS.items() for p in ("measured", "filled")}
    if not volumetric:
        wanted |= PAIR_METRICS
    made = {}
    for name, start in wanted.items():
        stem = name.removesuffix("_measured").removesuffix("_filled")
        gain = {"psnr": 9.0, "psnr_brain": 6.0, "spectrum_error": -6.0}.get(stem, 0.6)
        gain = -0.22 if stem in ("nrmse", "mae") else gain
        noise = 0.05 * abs(gain) * generator.standard_normal(len(subjects))
        offsets = start + gain * quality + noise - (0.05 * gain if name.endswith("filled") else 0)
        made[name] = _figure(dict(zip(subjects, offsets, strict=True)))
    if volumetric:
        own, truth = 0.99 - 0.05 * quality, 0.93
        made["i_ssim"] = _figure(dict.fromkeys(subjects, own))
        made["i_ssim_reference"] = _figure(dict.fromkeys(subjects, truth))
        made["i_ssim_gap"] = _figure(dict.fromkeys(subjects, own - truth))
    return made


def a_head(shape):
    """A phantom (slice, row, column): skull, grey and white matter, ventricles, in [0, 1]."""
    axes = [np.linspace(-1, 1, n) for n in shape]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt((z * 0.9) ** 2 + (y / 0.92) ** 2 + (x / 0.78) ** 2)
    folds = 0.06 * np.sin(14 * np.arctan2(y, x) + 6 * z)
    image = np.where(radius < 0.97, 0.75, 0.0)
    image = np.where(radius < 0.88, 0.08, image)
    image = np.where(radius < 0.80, 0.45, image)
    image = np.where(radius < 0.66 + folds, 0.8, image)
    image = np.where((np.abs(x) < 0.16) & (np.abs(y) < 0.3) & (np.abs(z) < 0.3), 0.1, image)
    return ndi.gaussian_filter(image, 0.7).astype(np.float32), radius < 0.97


def _prediction(reference, mask, quality, seed):
    noise = np.random.default_rng(seed).standard_normal(reference.shape)
    soft = ndi.gaussian_filter(reference, 3 * (1 - quality))
    flat = float(reference[mask].mean())
    mixed = quality * soft + (1 - quality) * flat
    mixed += 0.06 * quality * ndi.gaussian_filter(noise, 0.8)
    return np.where(mask, mixed, 0).astype(np.float32)


def an_evaluation(*, volumetric=True, protocol="decimate:2", shape=(20, 44, 40), **changes):
    """A whole evaluation; `methods` gives {name: quality from 0 to 1}; others go to `dataset`."""
    qualities = changes.pop("methods", METHODS)
    protocol = protocol if volumetric else "none"
    subjects = changes.pop("subjects", ["head-a", "head-b", "head-c"])
    reference, mask = a_head(shape)
    sparse = protocol != "none"
    dataset = {
        "name": "phantom-heads",
        "source_kind": "ct" if volumetric else "ct-window",
        "volumetric": volumetric,
        "licence": "CC0-1.0",
        "origin": "drawn by a test",
        "split": "test",
        "subjects": subjects,
        "slices": dict.fromkeys(subjects, shape[0]),
    } | changes
    document = {
        "format": 1,
        "dataset": dataset,
        "protocol": protocol,
        "mode": "standard",
        "bundle": {"name": "tiny", "version": "1.2.3", "digest": "ab" * 32, "engine": "none"},
        "seed": 0,
        "methods": {
            name: _metrics(quality, subjects, volumetric, sparse)
            for name, quality in qualities.items()
        },
        "skipped": {"template": "no T1 template is at hand"},
        "notes": ["Scored in the unit of the reference."],
        "montage": subjects[0],
    }
    measured = np.arange(shape[0]) % 2 == 0 if sparse else np.ones(shape[0], dtype=bool)
    montage = Montage(
        subject=subjects[0],
        source=1 - reference,
        reference=reference,
        mask=mask,
        predictions={
            name: _prediction(reference, mask, quality, seed)
            for seed, (name, quality) in enumerate(qualities.items())
        },
        positions_mm=np.arange(shape[0], dtype=np.float64) * (2.0 if volumetric else 1.0),
        measured=measured,
        pixel_mm=(1.0, 1.0) if volumetric else None,
    )
    return Evaluation(document=document, montage=montage)
