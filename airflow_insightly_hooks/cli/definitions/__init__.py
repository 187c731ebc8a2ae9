"""The definitions of the commands, by topic: their names, arguments and help texts.

Private.
"""
