"""The scikit-learn face, and nothing else.

Here belongs what scikit-learn expects of an estimator: parameters, fit, predict, tags, scores. How
data is prepared, models are built and weights trained does not.
"""
