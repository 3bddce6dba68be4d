"""What stands inside the model: the flat graph from the input to the probabilities.

Here belongs every layer that is saved and served with the model. What happens to its weights, and
what happens to the data before it, does not.
"""
