"""Host operators: element-wise, pooling, shapes, quantization."""
