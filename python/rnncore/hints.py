"""What to write here for the names that other libraries have: tables that `hinting` reads."""

from __future__ import annotations

from collections.abc import Mapping

_LAYERS = "the layers are in rnncore itself: rnncore.LSTM, rnncore.Linear"
_ARRAYS = "layers take and return NumPy arrays"
VOCABULARY = "rnncore.Vocabulary.of(sentences) numbers words, its encode(words) gives the numbers"
LENGTHS = "give the padded array and lengths: layer(x, lengths=lengths)"
_PADDED = "rnncore.batches.padded(sequences) returns one array and the lengths"
_BATCHES = "a batch is a rnncore.batches.Batch or a tuple (inputs, targets, lengths)"
_SOFTMAX = "rnncore.SoftmaxCrossEntropy(), which takes logits and the numbers of classes"
_BINARY = "rnncore.BinaryCrossEntropy(), which takes logits"
_SCHEDULES = "a learning rate is a number or one of rnncore.schedules: Adam(model, lr=schedule)"
_CPU = "everything runs on the CPU; leave it out"
_TORCH = "rnncore.torch.replace(model) has rnncore compute a PyTorch model's recurrent layers"
_PINBALL = "write rnncore.losses.Pinball(quantile)"
WORDS = (
    "number words by rnncore.Vocabulary, and put a rnncore.Embedding before the recurrent layers, "
    "as docs/how_to/tag.md shows"
)
_FIT = "rnncore.training.Trainer trains a module; rnncore.estimators have fit and predict"

#: Modules that `import rnncore` does not give.
SUBMODULES = ("alignment", "estimators", "text", "torch", "trees")
#: Names that are sought in `rnncore`.
TOP_LEVEL: Mapping[str, str] = {
    # torch
    "nn": _LAYERS,
    "functional": _LAYERS,
    "Sequential": "write rnncore.Chain(layer, layer, ...)",
    "ModuleList": "write a list as an attribute of a rnncore.Module",
    "ModuleDict": "write a dict as an attribute of a rnncore.Module",
    "Parameter": "a rnncore.Module hands its arrays to super().__init__({name: array})",
    "CrossEntropyLoss": f"write {_SOFTMAX}",
    "NLLLoss": f"write {_SOFTMAX}; leave the log-softmax out",
    "BCEWithLogitsLoss": f"write {_BINARY}",
    "BCELoss": f"write {_BINARY}; leave the sigmoid out",
    "MSELoss": "write rnncore.MeanSquaredError()",
    "HuberLoss": "write rnncore.losses.Huber()",
    "SmoothL1Loss": "write rnncore.losses.Huber()",
    "BatchNorm1d": "write rnncore.BatchNorm(features)",
    "BatchNorm2d": "write rnncore.BatchNorm(features)",
    "pack_padded_sequence": LENGTHS,
    "pad_packed_sequence": LENGTHS,
    "pack_sequence": f"{_PADDED}; {LENGTHS}",
    "PackedSequence": LENGTHS,
    "pad_sequence": _PADDED,
    "clip_grad_norm_": "write rnncore.clip_grad_norm(model, max_norm)",
    "no_grad": "a call records nothing; leave it out",
    "inference_mode": "a call records nothing; leave it out",
    "autograd": "rnncore has no autograd: each module has vjp, which returns its pullback",
    "tensor": _ARRAYS,
    "Tensor": _ARRAYS,
    "from_numpy": _ARRAYS,
    "device": _CPU,
    "cuda": _CPU,
    "manual_seed": "each module that draws takes a seed: LSTM(8, 32, seed=0)",
    "DataLoader": f"{_BATCHES}; rnncore.batches.shuffled gives them in a new order each epoch",
    "Dataset": _BATCHES,
    "TensorDataset": _BATCHES,
    "lr_scheduler": _SCHEDULES,
    "save": "write model.save(path)",
    "GaussianNLLLoss": "write rnncore.distributions.Gaussian(), which takes raw outputs",
    "PoissonNLLLoss": "write rnncore.distributions.Poisson(), which takes the mean's logarithm",
    "L1Loss": "write rnncore.losses.MeanAbsoluteError()",
    "replace": _TORCH,
    "pytorch": _TORCH,
    "optimize": _TORCH,
    "accelerate": _TORCH,
    # of other libraries
    "BiLSTM": "write rnncore.LSTM(input_size, hidden_size, bidirectional=True)",
    "BiGRU": "write rnncore.GRU(input_size, hidden_size, bidirectional=True)",
    "Vocab": VOCABULARY,
    "PinballLoss": _PINBALL,
    "QuantileLoss": _PINBALL,
    # Keras
    "Model": "write rnncore.Chain, rnncore.Graph or a class derived from rnncore.Module",
    "Input": 'rnncore.Graph names its inputs: Graph(["x"], nodes, ["y"])',
    "Dense": "write rnncore.Linear(in_features, out_features)",
    "SimpleRNN": "write rnncore.RNN(input_size, hidden_size)",
    "LayerNormalization": "write rnncore.LayerNorm(features)",
    "BatchNormalization": "write rnncore.BatchNorm(features)",
    "Conv1D": "write rnncore.Conv1d(in_channels, out_channels, kernel_size)",
    "Conv2D": "write rnncore.Conv2d(in_channels, out_channels, kernel_size)",
    "Activation": "write rnncore.Tanh(), rnncore.ReLU() or rnncore.Elementwise(name)",
    "Flatten": "write rnncore.Reshape",
    "Masking": LENGTHS,
    "GlobalAveragePooling1D": "write rnncore.GlobalAvgPool()",
    "GlobalMaxPooling1D": "write rnncore.GlobalMaxPool()",
    "Concatenate": 'write rnncore.Merge("concat")',
    "BinaryCrossentropy": f"write {_BINARY}",
    "CategoricalCrossentropy": f"write {_SOFTMAX}: targets.argmax(-1)",
    "SparseCategoricalCrossentropy": f"write {_SOFTMAX}",
    "EarlyStopping": "write rnncore.training.Trainer(...).fit(patience=n)",
    "ModelCheckpoint": "write rnncore.training.Trainer(...).fit(checkpoint=path)",
    "pad_sequences": _PADDED,
    "to_categorical": "targets are the numbers of classes, not rows of zeros and ones",
    "load_model": "write rnncore.load(path), or rnncore.convert.from_keras(path) of Keras's files",
    # ours, in modules that are imported by themselves
    "Trainer": "write rnncore.training.Trainer",
    "evaluate": "write rnncore.training.evaluate",
    "Batch": "write rnncore.batches.Batch",
    "padded": "write rnncore.batches.padded",
    "bucketed": "write rnncore.batches.bucketed",
    "shuffled": "write rnncore.batches.shuffled",
    "Huber": "write rnncore.losses.Huber()",
    "Pinball": _PINBALL,
    "save_arrays": "write rnncore.arrays.save_arrays",
    "load_arrays": "write rnncore.arrays.load_arrays",
    "SequenceLabeler": "write from rnncore.estimators import SequenceLabeller",
    "SequenceScaler": "write from rnncore.estimators import SequenceScaler",
    "SequenceClassifier": "write from rnncore.estimators import SequenceClassifier",
    "SequenceLabeller": "write from rnncore.estimators import SequenceLabeller",
    "SequenceRegressor": "write from rnncore.estimators import SequenceRegressor",
    "SequenceTranscriber": "write from rnncore.estimators import SequenceTranscriber",
    "Forecaster": "write from rnncore.estimators import Forecaster",
    **{name: f"it is imported by itself: import rnncore.{name}" for name in SUBMODULES},
}

_MODE = "a call computes outputs, vjp trains, with dropout: there is no mode to set"
_PARAMS = "params holds the arrays by name; an optimiser takes the module: rnncore.Adam(model)"
_DTYPE = "dtype is an argument of the constructor: LSTM(8, 32, dtype='float64')"

#: Attributes that are sought in a module.
MODULE: Mapping[str, str] = {
    # torch
    "parameters": _PARAMS,
    "named_parameters": _PARAMS,
    "train": _MODE,
    "eval": _MODE,
    "to": f"{_CPU}; {_DTYPE}",
    "cpu": _CPU,
    "cuda": _CPU,
    "float": _DTYPE,
    "double": _DTYPE,
    "half": "rnncore.quantize(model, 'bfloat16') holds the weights in 16 bits",
    "forward": "call the module itself: model(x)",
    "backward": "y, pullback = model.vjp(x), then pullback(dy)",
    "requires_grad_": "vjp computes gradients, a call does not; an optimiser moves the parameters "
    "of the module that it is given, which may be a part",
    "step": "write stream = model.stream(), then stream.step(frame)",
    "flatten_parameters": "weights are packed by the library; leave it out",
    # Keras and scikit-learn
    "fit": _FIT,
    "predict": f"call the module itself: model(x). {_FIT}",
    "compile": _FIT,
    "evaluate": "write rnncore.training.evaluate(model, loss, batches)",
    "summary": "write rnncore.summary(model)",
    "add": "give all layers to the constructor: rnncore.Chain(layer, layer, ...)",
    "get_weights": "state_dict() copies the arrays by name",
    "set_weights": "load_state_dict({name: array}) copies arrays in",
    "trainable_variables": _PARAMS,
    "trainable_weights": _PARAMS,
    "save_weights": "write model.save(path)",
    "load_weights": "write model.load(path)",
}

#: Keyword arguments of a constructor.
CONSTRUCTOR: Mapping[str, str] = {
    "device": _CPU,
    "units": "write hidden_size",
    "input_dim": "write input_size",
    "input_shape": "write input_size",
    "return_sequences": "y holds all steps; rnncore.Readout(layer) gives the last",
    "return_state": "a call returns (y, state)",
    "stateful": "give the state to the next call: y, state = layer(x, state)",
    "go_backwards": "write rnncore.Reversed(layer)",
    "activation": "write nonlinearity for RNN, activations for LSTM and GRU",
    "recurrent_activation": "write activations",
    "kernel_initializer": "write init",
    "recurrent_initializer": "write init",
    "mask_zero": f"{LENGTHS}; rnncore.Masked finds them in the input",
    "padding_idx": LENGTHS,
    # of optimisers and losses
    "learning_rate": "write lr",
    "params": "give the module: rnncore.Adam(model)",
    "clipnorm": "rnncore.clip_grad_norm(model, max_norm), or clip_norm of rnncore.training.Trainer",
    "from_logits": "losses take logits; leave it out",
    "weight": "write class_weight",
}

_SIZE = "write hidden_size, and num_layers for the number of layers"
_HORIZON = "a Forecaster takes horizon"
_WINDOW = "a Forecaster takes window"
_STOPPING = "write early_stopping=True, with validation_fraction and n_iter_no_change"

#: Keyword arguments of an estimator's constructor.
ESTIMATOR: Mapping[str, str] = {
    "epochs": "write max_iter",
    "n_epochs": "write max_iter",
    "num_epochs": "write max_iter",
    "max_epochs": "write max_iter",
    "lr": "write learning_rate",
    "learning_rate_init": "write learning_rate",
    "alpha": "write weight_decay",
    "units": _SIZE,
    "hidden_dim": _SIZE,
    "hidden_units": _SIZE,
    "hidden_layer_sizes": _SIZE,
    "n_layers": "write num_layers",
    "activation": "write cell='rnn', cell_options={'nonlinearity': 'relu'}",
    "optimizer": "training is by AdamW; rnncore.training.Trainer takes any optimiser",
    "loss": "rnncore.training.Trainer takes any loss; quantiles of a Forecaster choose its own",
    "patience": _STOPPING,
    "validation_split": _STOPPING,
    "warm_start": "partial_fit makes one more pass",
    "seed": "write random_state",
    "class_weights": "write class_weight",
    "n_jobs": "rnncore.set_num_threads(n) says how many threads there are",
    "device": _CPU,
    "lookback": _WINDOW,
    "window_size": _WINDOW,
    "input_chunk_length": _WINDOW,
    "output_chunk_length": _HORIZON,
    "forecast_horizon": _HORIZON,
    "steps": _HORIZON,
    "vocab_size": WORDS,
    "embedding_dim": WORDS,
}

_NETWORK = "network_ is the module, network_.params its arrays by name"
_HISTORY = "history_ holds a dict for each pass; plot_history() draws it"
_KEPT = "pickle or joblib keep an estimator, network_.save(path) its network"

#: Attributes that are sought in an estimator.
FITTED: Mapping[str, str] = {
    "save": _KEPT,
    "load": f"{_KEPT}, which rnncore.load(path) reads",
    "evaluate": "write score(X, y), or give predict(X) to sklearn.metrics",
    "history": _HISTORY,
    "loss_curve_": _HISTORY,
    "coefs_": _NETWORK,
    "model_": _NETWORK,
    "module_": _NETWORK,
    "stream": "rnncore.Chain(network_[0].layer, *network_.layers[1:]).stream() answers each frame",
}

_CLASSIFIER = "write SequenceClassifier(cell='lstm'); cell says which network it is"
_REGRESSOR = "write SequenceRegressor(cell='lstm'); cell says which network it is"
_LABELLER = "write SequenceLabeller"
_FORECASTER = "write Forecaster(cell='lstm'); cell says which network it is"

#: Names that are sought in `rnncore.estimators`.
ESTIMATORS: Mapping[str, str] = {
    "LSTMClassifier": _CLASSIFIER,
    "GRUClassifier": _CLASSIFIER,
    "RNNClassifier": _CLASSIFIER,
    "LSTMRegressor": _REGRESSOR,
    "GRURegressor": _REGRESSOR,
    "RNNRegressor": _REGRESSOR,
    "LSTMForecaster": _FORECASTER,
    "GRUForecaster": _FORECASTER,
    "RNNForecaster": _FORECASTER,
    "SequenceLabeler": _LABELLER,
    "SequenceTagger": _LABELLER,
    "CRFTagger": f"{_LABELLER}(crf=True)",
}

#: Names that are sought in `rnncore.torch`.
TORCH: Mapping[str, str] = {
    "accelerate": _TORCH,
    "patch": _TORCH,
    "optimize": _TORCH,
    "compile": f"{_TORCH}, within torch.compile too",
    "convert": f"{_TORCH}; rnncore.convert.from_torch makes a model of ours of it",
    "from_torch": "write rnncore.convert.from_torch",
}

_QUANTILES = "write Forecaster(quantiles=[0.1, 0.5, 0.9]), whose predict_quantiles(X) returns them"

#: Attributes that are sought in a `Forecaster`.
FORECASTER: Mapping[str, str] = {
    "forecast": "predict(X) returns the horizon steps that follow the series X",
    "predict_interval": _QUANTILES,
    "predict_proba": _QUANTILES,
    "predict_quantile": _QUANTILES,
}

_STEP = "write step(frame), or run(frames) for several"
_SNAPSHOT = (
    "snapshot() returns named arrays: rnncore.arrays.save_arrays(path, stream.snapshot()), and "
    "restore takes them"
)
COPIED = "make another with model.stream(), and restore(stream.snapshot()) there"

#: Attributes that are sought in a stream.
STREAM: Mapping[str, str] = {
    "push": _STEP,
    "feed": _STEP,
    "send": _STEP,
    "process": _STEP,
    "forward": _STEP,
    "predict": _STEP,
    "save": _SNAPSHOT,
    "load": _SNAPSHOT,
    "get_state": _SNAPSHOT,
    "set_state": _SNAPSHOT,
    "state_dict": _SNAPSHOT,
    "load_state_dict": _SNAPSHOT,
    "reset_states": "write reset()",
    "add": "write join()",
    "remove": "write leave(rows)",
    "copy": COPIED,
    "clone": COPIED,
    "close": "a stream that is no longer referenced frees its memory; leave it out",
}

_ENCODE = "encode(tokens) returns the numbers of a sequence"
_DECODE = "decode(numbers) returns the tokens"
_OF = "write rnncore.Vocabulary.of(sentences)"

#: Attributes that are sought in a vocabulary.
WORDBOOK: Mapping[str, str] = {
    "stoi": _ENCODE,
    "index": _ENCODE,
    "lookup_indices": _ENCODE,
    "itos": _DECODE,
    "lookup_tokens": _DECODE,
    "build": _OF,
    "fit": _OF,
    "from_sentences": _OF,
}

_VITERBI = "decode(emissions, lengths) returns the best tags"
_CRF_LOSS = "write rnncore.CRFLoss(crf)(emissions, tags, lengths)"

_VALIDATE = "write Trainer(..., validate=lambda: rnncore.training.evaluate(model, loss, batches))"
_UPDATES = "fit(steps) counts updates, not passes: write the passes times the batches of one"

#: Keyword arguments of a trainer's constructor.
TRAINER: Mapping[str, str] = {
    "epochs": _UPDATES,
    "optimizer": "write optimiser",
    "lr": "the optimiser has it: rnncore.Adam(model, lr=1e-3)",
    "train_loader": "write batches",
    "val_loader": _VALIDATE,
    "validation": _VALIDATE,
    "validation_data": _VALIDATE,
}
#: Keyword arguments of its `fit`.
FIT: Mapping[str, str] = {
    "epochs": _UPDATES,
    "n_epochs": _UPDATES,
    "max_epochs": _UPDATES,
    "num_epochs": _UPDATES,
    "validation_data": _VALIDATE,
    "verbose": "write quiet=True for no output",
}
#: Attributes that are sought in it.
TRAINED: Mapping[str, str] = {
    "train": f"write fit(steps). {_UPDATES}",
    "evaluate": "write rnncore.training.evaluate(model, loss, batches)",
    "predict": "call the model: y, state = model(x)",
}
#: Keyword arguments of `Vocabulary.of`.
OF: Mapping[str, str] = {
    "min_freq": "write least",
    "min_count": "write least",
    "max_size": "write most",
    "max_tokens": "write most",
    "specials": "padding, start, end and unknown have the first four numbers",
}
#: Keyword arguments of `Chain.stream`, and of a CRF's `decode`.
ROWS: Mapping[str, str] = {"batch_size": "write batch", "n": "write batch", "rows": "write batch"}
DECODE: Mapping[str, str] = {"mask": "give lengths: crf.decode(emissions, lengths)"}

#: Attributes that are sought in a `CRF`.
CRF: Mapping[str, str] = {
    "viterbi": _VITERBI,
    "viterbi_decode": _VITERBI,
    "loss": _CRF_LOSS,
    "neg_log_likelihood": _CRF_LOSS,
}

_STATE = "the state is called state: layer(x, state), (h, c) of an LSTM"

#: Keyword arguments of a call.
CALL: Mapping[str, str] = {
    "hx": _STATE,
    "h0": _STATE,
    "h_0": _STATE,
    "initial_state": _STATE,
    "input": "it is called x",
    "inputs": "it is called x",
    "mask": LENGTHS,
    "training": _MODE,
}

_TORCHS = "rnncore.convert.from_torch reads PyTorch's files"
_KERAS = "rnncore.convert.from_keras reads Keras's files"

#: Files of other libraries, by the ends of their names.
FILES: Mapping[str, str] = {
    ".pt": _TORCHS,
    ".pth": _TORCHS,
    ".bin": _TORCHS,
    ".ckpt": _TORCHS,
    ".keras": _KERAS,
    ".h5": _KERAS,
    ".onnx": "rnncore.convert.from_onnx reads ONNX files",
}
