"""Parts that operators share.

Private.
"""
