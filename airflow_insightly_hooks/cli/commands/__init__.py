"""The functions of the commands, a module for each: they take the parsed arguments, and print.

Private.
"""
