"""Raw X and y of each modality, on their way to the model.

Here belongs what happens to data outside the graph: checks, decoding, resizing, value ranges,
labels to indices, splits, a look at what is wrong with it. What the model does to its input does
not.
"""
