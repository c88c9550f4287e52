"""Streams: frames in as they come, outputs out, the state kept inside."""
