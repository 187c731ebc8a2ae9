"""One POST: the receiver, its address, the connection, the exchange and its response.

Private.
"""
