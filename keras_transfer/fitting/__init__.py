"""One fit, from examples to a network that answers, and what can be said of it.

Here belongs the order of the steps: part the examples, choose, train, check, judge. How a step is
done is for `choosing` and `training`; what scikit-learn expects is for `estimators`.
"""
