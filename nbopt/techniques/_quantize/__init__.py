"""Quantization: a module for each form of file, and what they share."""
