from . import hopfield as hopfield
from .bag_pooling import AttentionPooling as AttentionPooling, MaxPooling as MaxPooling, MeanPooling as MeanPooling
from .channel_gate import ChannelGate as ChannelGate
from .cnn_svm import AgarapCNN as AgarapCNN
from .count import multiply_adds as multiply_adds, parameters as parameters
from .densenet import DenseNet as DenseNet, densenet as densenet
from .diffusion_mlp import DiffusionMLP as DiffusionMLP
from .diffusion_transformer import DiffusionTransformer as DiffusionTransformer
from .drop_path import DropPath as DropPath, drop_path_rates as drop_path_rates
from .film import FiLM as FiLM
from .film_resnet import FiLMResNet as FiLMResNet
from .hooks import capture as capture, evaluating as evaluating, find_layer as find_layer, unwrap as unwrap
from .hopfield import (
    AssociativeMemory as AssociativeMemory,
    DenseMemory as DenseMemory,
    HebbianMemory as HebbianMemory,
    Hopfield as Hopfield,
    HopfieldAttention as HopfieldAttention,
    HopfieldLayer as HopfieldLayer,
    HopfieldPooling as HopfieldPooling,
    convert_to_hopfield as convert_to_hopfield,
)
from .ibn_net import (
    IBN as IBN,
    InstanceNorm as InstanceNorm,
    convert_to_ibn as convert_to_ibn,
    feature_divergence as feature_divergence,
    ibn_densenet as ibn_densenet,
    ibn_norm as ibn_norm,
    ibn_resnet as ibn_resnet,
    ibn_resnext as ibn_resnext,
    ibn_se_resnet as ibn_se_resnet,
)
from .layer_scale import LayerScale as LayerScale
from .maps import (
    LayerNorm2d as LayerNorm2d,
    PreNormResidual as PreNormResidual,
    SameAvgPool2d as SameAvgPool2d,
    SameConv2d as SameConv2d,
)
from .mbconv import MBConv as MBConv, PooledShortcut as PooledShortcut
from .mish import Mish as Mish, mish as mish
from .moat import (
    MOAT as MOAT,
    MOATBlock as MOATBlock,
    MOATConfig as MOATConfig,
    TransformerBlock2d as TransformerBlock2d,
)
from .qk_norm_attention import QKNormAttention as QKNormAttention
from .relative_attention import RelativePositionBias as RelativePositionBias, RelPosAttention2d as RelPosAttention2d
from .residual_mlp import ResidualMLP as ResidualMLP
from .resnet import NormPlace as NormPlace, ResidualBlock as ResidualBlock, ResNet as ResNet, resnet as resnet
from .rms_norm import RMSNorm as RMSNorm
from .scattering import (
    FeatureExtractor as FeatureExtractor,
    FilterBank as FilterBank,
    Scattering2D as Scattering2D,
    ScatteringModule as ScatteringModule,
    ScatteringTransformer as ScatteringTransformer,
    deform as deform,
    deformation_bound as deformation_bound,
    deformation_error as deformation_error,
    feature_distance as feature_distance,
    feature_extractor as feature_extractor,
    frequency_decreasing as frequency_decreasing,
    gabor_bank as gabor_bank,
    haar_bank as haar_bank,
    jacobian_norm as jacobian_norm,
    morlet_bank as morlet_bank,
    random_bank as random_bank,
    random_displacement as random_displacement,
    translation_bound as translation_bound,
    translation_error as translation_error,
)
from .spartan import (
    CMixer as CMixer,
    SMixer as SMixer,
    SpaRTAN as SpaRTAN,
    SpaRTANBlock as SpaRTANBlock,
    WaveModulation as WaveModulation,
)
from .spatial_softmax import SpatialSoftmax as SpatialSoftmax
from .squeeze_excite import SqueezeExcite as SqueezeExcite
from .stacked import StackedLinear as StackedLinear, StackedMLP as StackedMLP
from .step_embedding import SinusoidalEmbedding as SinusoidalEmbedding
from .swish_glu import GatedMLP as GatedMLP, SwishGLU as SwishGLU
from .tiny_vgg import (
    FlattenChannelsLast as FlattenChannelsLast,
    TinyVGG as TinyVGG,
    load_tfjs_weights as load_tfjs_weights,
)
from .unet1d import ConditionalUNet1D as ConditionalUNet1D
