"""What is computed from numbers alone: the sky, pictures, detection, morphology, metrics."""
