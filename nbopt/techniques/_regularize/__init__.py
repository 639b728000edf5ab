"""What regularization decides over NumPy alone."""
