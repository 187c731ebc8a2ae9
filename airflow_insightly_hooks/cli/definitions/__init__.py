"""What the commands are called, which arguments they take, and their help; by what they are about.

Private.
"""
