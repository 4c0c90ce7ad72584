"""What products and Lanczos steps cost from one process to a thousand GPUs: a cost model with measured constants."""
