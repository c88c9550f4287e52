"""Make `training.npz`: what PyTorch's losses, optimisers and schedules give for the cases below.

    pip install torch==2.13.0 numpy
    python tests/golden/make_training_golden.py

A case is our class, its arguments, and those of torch where they differ. All is float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILE = Path(__file__).with_name("training.npz")
STEPS = 12
WEIGHT = [0.5, 2.0, 0.0, 1.0, 3.0]  # of the classes, or of the last axis


class Case(NamedTuple):
    name: str
    ours: dict[str, Any]
    torch: dict[str, Any] | None = None  # None: the same as ours


LOSSES = {
    "softmax": Case("SoftmaxCrossEntropy", {}),
    "softmax_sum": Case("SoftmaxCrossEntropy", {"reduction": "sum"}),
    "softmax_smooth": Case("SoftmaxCrossEntropy", {"label_smoothing": 0.1}),
    "softmax_all_smooth": Case("SoftmaxCrossEntropy", {"label_smoothing": 1.0, "reduction": "sum"}),
    "softmax_weight": Case("SoftmaxCrossEntropy", {"class_weight": WEIGHT}),
    "softmax_weight_smooth": Case(
        "SoftmaxCrossEntropy", {"class_weight": WEIGHT, "label_smoothing": 0.2}
    ),
    "softmax_weight_sum": Case(
        "SoftmaxCrossEntropy", {"class_weight": WEIGHT, "label_smoothing": 0.2, "reduction": "sum"}
    ),
    "softmax_ignore": Case("SoftmaxCrossEntropy", {"ignore_index": 3, "label_smoothing": 0.2}),
    "softmax_ignore_weight": Case(
        "SoftmaxCrossEntropy", {"ignore_index": 3, "class_weight": WEIGHT}
    ),
    "binary": Case("BinaryCrossEntropy", {}),
    "binary_sum": Case("BinaryCrossEntropy", {"reduction": "sum"}),
    "binary_weight": Case("BinaryCrossEntropy", {"pos_weight": 3.0}),
    "binary_weight_sum": Case("BinaryCrossEntropy", {"pos_weight": WEIGHT, "reduction": "sum"}),
    "squared": Case("MeanSquaredError", {}),
    "squared_sum": Case("MeanSquaredError", {"reduction": "sum"}),
}

OPTIMISERS = {
    "sgd_default": Case("SGD", {}),
    "sgd_decay": Case("SGD", {"lr": 0.1, "weight_decay": 0.05}),
    "sgd_momentum": Case("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}),
    "sgd_nesterov": Case("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True}),
    "adam_default": Case("Adam", {}),
    "adam": Case("Adam", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.05}),
    "adamw_default": Case("AdamW", {}),
    "adamw": Case("AdamW", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.5}),
    "rmsprop_default": Case("RMSprop", {}),
    "rmsprop": Case("RMSprop", {"lr": 0.1, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.05}),
    "rmsprop_momentum": Case("RMSprop", {"lr": 0.1, "momentum": 0.7}),
    "rmsprop_centered": Case("RMSprop", {"lr": 0.1, "momentum": 0.7, "centered": True}),
    "adagrad_default": Case("Adagrad", {}),
    "adagrad": Case(
        "Adagrad",
        {
            "lr": 0.1,
            "lr_decay": 0.1,
            "weight_decay": 0.05,
            "initial_accumulator_value": 0.1,
            "eps": 1e-3,
        },
    ),
}

SCHEDULES = {
    "step_decay": Case("StepLR", {"every": 3, "factor": 0.5}, {"step_size": 3, "gamma": 0.5}),
    "exponential": Case("ExponentialLR", {"factor": 0.9}, {"gamma": 0.9}),
    "warmup_cosine": Case(
        "CosineAnnealingLR",
        {"total": STEPS - 1, "final": 0.01},
        {"T_max": STEPS - 1, "eta_min": 0.01},
    ),
}

TORCH_LOSSES = {
    "SoftmaxCrossEntropy": "CrossEntropyLoss",
    "BinaryCrossEntropy": "BCEWithLogitsLoss",
    "MeanSquaredError": "MSELoss",
}
TORCH_NAMES = {"class_weight": "weight"}


def loss_inputs() -> dict[str, np.ndarray]:
    """x (T, B, K), class targets and mask (T, B), elementwise targets in [0, 1] like x."""
    rng = np.random.default_rng(31)
    x = 5 * rng.standard_normal((4, 3, 5))
    classes, mask = rng.integers(0, 5, (4, 3)), np.arange(4)[:, None] < np.array([4, 1, 3])
    return {"x": x, "classes": classes, "values": rng.random(x.shape), "mask": mask}


def optimiser_inputs() -> dict[str, np.ndarray]:
    """A start of 11 numbers and a gradient for every step."""
    rng = np.random.default_rng(32)
    return {"start": rng.standard_normal(11), "gradients": rng.standard_normal((STEPS, 11))}


def main() -> None:
    """Write the file."""
    import torch

    if not torch.__version__.startswith("2.13.0"):
        raise SystemExit(
            f"the golden files are made with torch 2.13.0, this is {torch.__version__}"
        )
    torch.set_default_dtype(torch.float64)
    records = {"torch_version": np.array(torch.__version__)}
    for name, case in LOSSES.items():
        records |= {f"{name}.{key}": value for key, value in run_loss(torch, case).items()}
    for name, case in OPTIMISERS.items():
        records[name] = run_optimiser(torch, case)
    for name, case in SCHEDULES.items():
        records[name] = run_schedule(torch, case)
    records["clipped"], records["norms"] = run_clipping(torch)
    np.savez_compressed(FILE, **records)
    print(f"{FILE}: {FILE.stat().st_size / 1024:.0f} KB")


def run_loss(torch: Any, case: Case) -> dict[str, np.ndarray]:
    """Loss and gradient, of all elements and of those in the mask."""
    given, results = loss_inputs(), {}
    loss = getattr(torch.nn, TORCH_LOSSES[case.name])(
        **{
            TORCH_NAMES.get(k, k): torch.tensor(v) if "weight" in k else v
            for k, v in case.ours.items()
        }
    )
    targets = given["classes" if case.name == "SoftmaxCrossEntropy" else "values"]
    for kind, mask in (("all", np.ones_like(given["mask"])), ("masked", given["mask"])):
        x = torch.tensor(given["x"], requires_grad=True)
        value = loss(x[torch.tensor(mask)], torch.tensor(targets[mask]))
        value.backward()
        results[f"{kind}.loss"], results[f"{kind}.dx"] = value.detach().numpy(), x.grad.numpy()
    return results


def run_optimiser(torch: Any, case: Case) -> np.ndarray:
    """The parameters after every step."""
    given = optimiser_inputs()
    param = torch.nn.Parameter(torch.tensor(given["start"]))
    optimiser = getattr(torch.optim, case.name)([param], **case.ours)
    trace = []
    for gradient in given["gradients"]:
        param.grad = torch.tensor(gradient)
        optimiser.step()
        trace.append(param.detach().numpy().copy())
    return np.array(trace)


def run_schedule(torch: Any, case: Case) -> np.ndarray:
    """The rate of every step, starting at 0.5."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = getattr(torch.optim.lr_scheduler, case.name)(optimiser, **(case.torch or {}))
    rates = []
    for _ in range(STEPS):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return np.array(rates)


def run_clipping(torch: Any) -> tuple[np.ndarray, np.ndarray]:
    """Gradients clipped to norm 2.5 in two parameters of 4 and 7, and the norms before."""
    clipped, norms = [], []
    for gradient in optimiser_inputs()["gradients"]:
        params = [torch.nn.Parameter(torch.zeros(size)) for size in (4, 7)]
        params[0].grad, params[1].grad = torch.tensor(gradient[:4]), torch.tensor(gradient[4:])
        norms.append(torch.nn.utils.clip_grad_norm_(params, 2.5).item())
        clipped.append(torch.cat([param.grad for param in params]).numpy())
    return np.array(clipped), np.array(norms)


if __name__ == "__main__":
    main()
