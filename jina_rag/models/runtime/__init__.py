"""Shared runtime of the torch models: checkpoints, weights, devices, batching, caches, offloading."""
