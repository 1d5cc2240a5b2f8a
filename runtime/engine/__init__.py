"""TensorRT engines on a GPU: what runs them, and the memory, streams, kernels and records they need."""
