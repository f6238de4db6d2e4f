from .cnn_svm import AgarapCNN as AgarapCNN
from .hooks import capture as capture, evaluating as evaluating, find_layer as find_layer, unwrap as unwrap
