"""What tune changes in a model, in each framework."""
