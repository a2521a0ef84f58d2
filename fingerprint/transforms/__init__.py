"""Ways to derive a model file from another: prune, quantize, compile, and chains of them."""
