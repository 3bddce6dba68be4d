"""What is chosen from the training data alone, before and after the training.

Here belongs what compares: where to read, which blocks train, whether the source helps. What is
compared is computed in `training`; how the choice reaches a user is for `estimators`.
"""
