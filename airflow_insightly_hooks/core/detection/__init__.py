"""Windows of time, reading a search, the changes in it, and what is left of a day's requests.

Private.
"""
