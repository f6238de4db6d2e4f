from .cnn_explainer import (
    export_web as export_web,
    external_references as external_references,
    intermediate as intermediate,
    softmax_terms as softmax_terms,
    trace as trace,
)
from .grad_cam import (
    GradCAM as GradCAM,
    GuidedGradCAM as GuidedGradCAM,
    cam as cam,
    guided_grad_cam as guided_grad_cam,
    overlay as overlay,
)
from .gradient import (
    ReLURule as ReLURule,
    Saliency as Saliency,
    deconvnet as deconvnet,
    guided_backprop as guided_backprop,
    input_gradient as input_gradient,
)
from .integrated_gradients import IntegratedGradients as IntegratedGradients
from .linear_interpreters import (
    LinearInterpreter as LinearInterpreter,
    LinearScope as LinearScope,
    SingularTriplets as SingularTriplets,
    linear_interpreter as linear_interpreter,
)
from .metrics import (
    abstaining_pointing_game as abstaining_pointing_game,
    box_iou as box_iou,
    box_mask as box_mask,
    discrimination as discrimination,
    localization_error as localization_error,
    map_boxes as map_boxes,
    pointing_game as pointing_game,
    rank_correlation as rank_correlation,
)
from .perturbation import occlusion_map as occlusion_map
from .targets import Attribution as Attribution
