from .cnn_svm import AgarapCNN as AgarapCNN
