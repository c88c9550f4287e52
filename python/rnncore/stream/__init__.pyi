from .base import Stream as Stream
from .sessions import Session as Session
from .sessions import Sessions as Sessions
