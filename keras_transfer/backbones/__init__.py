"""Where pretrained models come from.

Here belongs all that is known of a source network: how it is made, its weights, its preprocessing
and its blocks. What is built on top of it, or done to its weights, does not.
"""
