"""The settings of Keras's layers: which are known, and what activations are called."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..common import refusal, shown
from .others import OTHERS

#: Keras's cells: our names of them, and the order of their gates in our letters.
CELLS = {"SimpleRNN": ("rnn", "h"), "LSTM": ("lstm", "ifgo"), "GRU": ("gru", "zrn")}
#: Classes that say the same in another way.
ALIASES = {"CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU", "Model": "Functional"}
ALIASES |= {name: other.kind for name, other in OTHERS.items()}
#: What an RNN has as its cell, and which layer that makes of it.
CELL_CLASSES = {f"{kind}Cell": kind for kind in CELLS}
#: Layers that act in training alone, and are left out.
TRAINING = {
    *("ActivityRegularization", "AlphaDropout", "GaussianDropout", "GaussianNoise"),
    *(f"SpatialDropout{axes}D" for axes in (1, 2, 3)),
}

_RECURRENT = "activation recurrent_activation use_bias reset_after"
_RUN = "return_sequences return_state go_backwards"
_CONVOLUTION = "kernel_size strides padding data_format dilation_rate groups activation use_bias"
_POOLING = "pool_size strides padding data_format"
#: The layers that are known, each with the settings that say what it computes.
_KNOWN = {
    "Activation": "activation",
    "Add": "",
    "AdditiveAttention": "use_scale",
    "Attention": "use_scale score_mode",
    "Average": "",
    "BatchNormalization": "axis momentum epsilon center scale",
    "Bidirectional": "layer backward_layer merge_mode",
    "Concatenate": "axis",
    "Conv1D": _CONVOLUTION,
    "Conv2D": _CONVOLUTION,
    "Dense": "activation use_bias",
    "Dot": "axes normalize",
    "Dropout": "rate noise_shape",
    "ELU": "alpha",
    "Embedding": "mask_zero",
    "Flatten": "data_format",
    "Functional": "layers input_layers output_layers",
    "InputLayer": "",
    "LayerNormalization": "axis epsilon center scale",
    "LeakyReLU": "alpha negative_slope",
    "Masking": "mask_value",
    "Maximum": "",
    "Minimum": "",
    "Multiply": "",
    "PReLU": "shared_axes",
    "Permute": "dims",
    "RNN": f"cell {_RUN}",
    "ReLU": "negative_slope",
    "RepeatVector": "n",
    "Reshape": "target_shape",
    "Sequential": "layers build_input_shape",
    "Softmax": "axis",
    "Subtract": "",
    "TimeDistributed": "layer",
    **dict.fromkeys(CELLS, f"{_RECURRENT} {_RUN}"),
    **{f"{how}Pooling{axes}D": _POOLING for how in ("Max", "Average") for axes in (1, 2)},
    **{
        f"Global{how}Pooling{axes}D": "data_format keepdims"
        for how in ("Max", "Average")
        for axes in (1, 2)
    },
    **{f"ZeroPadding{axes}D": "padding data_format" for axes in (1, 2)},
}
#: Settings without a meaning for what a loaded layer computes: sizes that its arrays have too,
#: what it is called and where it runs, and what acts in training.
_INERT = {
    *("name", "trainable", "dtype", "batch_input_shape", "batch_shape", "shape", "seed"),
    *("units", "filters", "input_dim", "output_dim", "input_length", "optional", "sparse"),
    *("stateful", "unroll", "implementation", "zero_output_for_mask"),
    *("dropout", "recurrent_dropout", "unit_forget_bias", "renorm_momentum", "fused"),
}
_ENDINGS = ("_initializer", "_regularizer", "_constraint")


class Version(NamedTuple):
    """A version of Keras; `certain` if a file tells it, and it is not TensorFlow's own Keras."""

    major: int = 2
    minor: int = 0
    certain: bool = False

    @classmethod
    def read(cls, told: Any) -> Version:
        """Return what a file says."""
        text = told.decode() if isinstance(told, bytes) else str(told)
        found = re.match(r"(\d+)(?:\.(\d+))?", text)
        if not found:
            return cls()
        return cls(int(found[1]), int(found[2] or 0), not text.endswith("-tf"))


def plain(kind: str) -> str:
    """Return the class that one of Keras's is read as."""
    return ALIASES.get(kind, kind)


def check_kinds(entries: Iterator[tuple[str, str]]) -> None:
    """Refuse layers that are not known, all at once, before anything is said of their settings."""
    unknown = [
        f"{kind} {shown(name)}"
        for kind, name in entries
        if plain(kind) not in _KNOWN and kind not in TRAINING
    ]
    if unknown:
        layers = "layer" if len(unknown) == 1 else "layers"
        raise refusal("rnncore", f"the Keras {layers} {', '.join(unknown)}")


def at_rest(value: Any) -> bool:
    """Whether a setting asks for nothing."""
    if isinstance(value, (list, tuple)):
        return all(map(at_rest, value))
    return value in (None, False, 0, {})


def check_settings(kind: str, config: dict[str, Any]) -> None:
    """Refuse every setting that is neither understood nor at rest."""
    known = {*_INERT, *_KNOWN[plain(kind)].split()}
    for key, value in config.items():
        if key in known or key.endswith(_ENDINGS):
            continue
        if not at_rest(value):
            raise refusal("rnncore", f"{kind} {config.get('name', '')!r} with {key}={shown(value)}")
    if config.get("data_format", "channels_last") not in ("channels_last", None):
        value = shown(config["data_format"])
        raise refusal("rnncore", f"{kind} {config.get('name', '')!r} with data_format={value}")


def translated(kind: str, config: dict[str, Any], version: int) -> dict[str, Any]:
    """Return the settings of a layer, its activations by our names."""
    names = ("activation", "recurrent_activation")
    own = {key: activation_name(config[key], version) for key in names if key in config}
    if kind.startswith("CuDNN"):
        own |= {"activation": "tanh", "recurrent_activation": "sigmoid"}
    rest = {"return_sequences": False, "return_state": False, "reset_after": kind == "CuDNNGRU"}
    return rest | config | own


def activation_name(name: Any, version: int = 3) -> Any:
    """Translate a Keras activation; raises `ValueError` naming what rnncore has not."""
    if isinstance(name, dict):  # as newer files write a function
        name = name.get("config")
    if isinstance(name, (tuple, list)):
        return tuple(name)
    hard = (1 / 6, 0.5) if version >= 3 else (0.2, 0.5)
    translated = {"linear": "identity", None: "identity", "leaky_relu": ("leaky_relu", 0.2)}
    translated |= {"hard_sigmoid": ("hard_sigmoid", *hard)}
    same = ("tanh", "sigmoid", "relu", "softmax", "elu", "selu", "softsign", "softplus")
    translated |= {name: name for name in (*same, "exponential", "identity")}
    if not isinstance(name, str | None) or name not in translated:
        raise refusal("rnncore", f"the Keras activation {shown(name)}")
    return translated[name]


def activation_of(kind: str, config: dict[str, Any]) -> Any:
    """Return what an activation that is a layer of its own is called."""
    slope = config.get("negative_slope", config.get("alpha"))
    slope = slope["value"] if isinstance(slope, dict) else slope
    if kind == "ReLU":
        return ("leaky_relu", float(slope)) if slope else "relu"
    if kind == "LeakyReLU":
        return ("leaky_relu", 0.3 if slope is None else float(slope))
    return ("elu", 1.0 if slope is None else float(slope)) if kind == "ELU" else "softmax"
