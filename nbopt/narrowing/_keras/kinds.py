"""Kinds of Keras layers and functions, by what they do to channels."""

from __future__ import annotations

# Layers that treat each channel by itself and keep the last axis.
PASSING = {
    "Activation", "ReLU", "LeakyReLU", "ELU", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
    "GaussianNoise", "GaussianDropout", "AlphaDropout", "Identity", "ActivityRegularization", "Rescaling",
    "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D", "GlobalAveragePooling1D",
    "GlobalAveragePooling2D", "GlobalAveragePooling3D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D",
    "Cropping1D", "Cropping2D", "Cropping3D", "UpSampling1D", "UpSampling2D", "UpSampling3D",
}  # fmt: skip
# Functions of `keras.ops` that do the same.
PASSING_OPS = {
    "Relu", "Relu6", "Sigmoid", "Tanh", "Silu", "Gelu", "HardSigmoid", "HardSilu", "LeakyRelu", "Elu", "Selu",
    "Softplus", "Cast", "Absolute", "Square", "Sqrt", "Exp", "Negative", "Clip",
}  # fmt: skip
# Layers and functions that combine equal positions of several tensors.
JOINING = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"}
ELEMENTWISE = {
    "linear", "relu", "relu6", "sigmoid", "tanh", "silu", "swish", "gelu", "elu", "selu", "softplus", "softsign",
    "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "leaky_relu", "exponential", "mish", "celu",
    "log_sigmoid", "squareplus", "soft_shrink", "hard_shrink", "tanh_shrink", "threshold",
}  # fmt: skip
GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}
