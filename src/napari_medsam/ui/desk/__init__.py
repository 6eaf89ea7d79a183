"""What one window owns: controller, journals, decoders, the training run."""
