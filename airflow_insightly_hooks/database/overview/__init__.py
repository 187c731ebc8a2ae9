"""What tasks have counted, read in one pass: of workflows, of receivers, of accounts.

Private.
"""
