"""The models that torchgo and PyTorch are compared on; beside each file is its twin in Go."""
