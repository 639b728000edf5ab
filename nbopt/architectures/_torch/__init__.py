"""Lower architectures to torch."""
