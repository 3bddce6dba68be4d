"""How weights change: which ones, how fast, for how long, and when to stop.

Here belongs everything between a built model and a trained one. Where models come from, what they
look like, and what scikit-learn wants to see do not.
"""
