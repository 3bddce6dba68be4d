"""Raw X and y of each modality, on their way to the model.

Here belongs what happens to data outside the graph: checks, decoding, resizing, value ranges,
labels to indices, splits. What the model does to its input does not.
"""
