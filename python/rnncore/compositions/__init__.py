"""Sequence layers made of sequence layers."""
