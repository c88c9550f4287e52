"""Layers without time: linear maps, tables, normalisation, dropout, activations."""
