"""Sequences of steps for properties that are about order, each with what a model says must come of a step."""
