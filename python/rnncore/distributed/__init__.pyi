from .collective import Alone as Alone
from .collective import Collective as Collective
from .collective import RankFailed as RankFailed
from .collective import RankLost as RankLost
from .mpi import MPICollective as MPICollective
from .torch import TorchCollective as TorchCollective
