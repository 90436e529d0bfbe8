"""Export of a finished run: weights, ONNX files, configuration and model card."""
