"""Lite models, the embedded default: small text encoders on onnxruntime, without torch."""
