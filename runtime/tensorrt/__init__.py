"""TensorRT engines on a GPU: CUDA memory and streams, engine files, the engine runner."""
