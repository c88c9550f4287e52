"""How fast is it? Recurrent layers timed here and elsewhere, and against what the machine can do.

A `Case` (cases) is a layer to run: which cell, which way, which shape. An engine (engines) runs it:
rnncore, the NumPy reference, PyTorch, ONNX Runtime, or the machine's own limit (machine). Each
works in a process of its own with its own threads (contest), which take turns on the same case, so
that what disturbs one disturbs all; what is compared is the median of the ratios of each round
(timing). Tables and pictures are made from the times (report, picture).
"""
