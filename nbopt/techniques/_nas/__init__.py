"""What `nas` does before the one training of its recipe; see `hunting.py`."""
