"""The activation store: rows of arrays kept under keys, in this process or in a folder.

Here belongs how rows are kept, found, limited in size and lost. What they are the outputs of, and
when they are asked for, does not.
"""
