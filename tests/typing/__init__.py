"""What type checkers see of the public names.

mypy is the test: a wrong type fails, and so does an ignore that is not needed.
"""
