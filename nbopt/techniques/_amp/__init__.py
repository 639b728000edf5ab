"""Mixed precision: which halves a machine computes, what their steps take, and which one is worth it."""
