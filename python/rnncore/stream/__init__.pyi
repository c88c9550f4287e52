from .base import Stream as Stream
