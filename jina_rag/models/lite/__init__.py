"""Lite models, the default models: small text encoders on onnxruntime, without torch."""
