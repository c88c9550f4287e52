"""Trees, the layers on them, and parsers that find them."""
