from .divergence import Diverged as Diverged
from .trainer import Trainer as Trainer
from .trainer import evaluate as evaluate
