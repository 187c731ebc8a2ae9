"""Windows of time, reading a search, finding its changes, and the budget of a day's requests.

Private.
"""
