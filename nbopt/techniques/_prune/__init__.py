"""What pruning decides before any framework is asked: which weights and which units go, when, and how much of each."""
