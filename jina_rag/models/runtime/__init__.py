"""What every torch model needs: checkpoints, weights, devices, batching, caches, offloading."""
