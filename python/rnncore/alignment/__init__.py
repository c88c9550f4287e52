"""Labels without alignment: losses that sum over all ways to place labels on frames, and searches.

Modules, as their names say: CTC (`ctc`, `ctc_search`, `forced`), the transducer, the CRF.
"""
