"""Fitted estimators as files, and back.

Here belongs what is written to disk and read again, as data and never as code. What is shown to a
person does not.
"""
