"""What a model returns, and the loss as a function of the tensors in it that matter."""
