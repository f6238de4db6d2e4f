"""Scattering networks: the general theory of Wiatowski and Bölcskei, and Morlet scattering of images."""

from reprise.nn.scattering.filters import FilterBank, gabor_bank, haar_bank, morlet_bank, random_bank
from reprise.nn.scattering.images import Scattering2D
from reprise.nn.scattering.network import FeatureExtractor, ScatteringModule, feature_extractor, frequency_decreasing
from reprise.nn.scattering.stability import (
    deform,
    deformation_bound,
    deformation_error,
    feature_distance,
    jacobian_norm,
    random_displacement,
    translation_bound,
    translation_error,
)
from reprise.nn.scattering.transformer import ScatteringTransformer

__all__ = [
    "FeatureExtractor",
    "FilterBank",
    "Scattering2D",
    "ScatteringModule",
    "ScatteringTransformer",
    "deform",
    "deformation_bound",
    "deformation_error",
    "feature_distance",
    "feature_extractor",
    "frequency_decreasing",
    "gabor_bank",
    "haar_bank",
    "jacobian_norm",
    "morlet_bank",
    "random_bank",
    "random_displacement",
    "translation_bound",
    "translation_error",
]
