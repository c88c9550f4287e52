"""rnncore: recurrent neural networks for NumPy arrays on a CPU."""
