"""The functions of the commands, in a module each. They take the parsed arguments and print the result.

Private.
"""
