"""Training and ONNX export of the encoders in `onnx_models/`; the only place that imports torch."""
