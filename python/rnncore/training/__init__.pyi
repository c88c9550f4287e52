from . import losses as losses
from . import optim as optim
from . import schedules as schedules
from .trainer import Trainer as Trainer
from .trainer import evaluate as evaluate
