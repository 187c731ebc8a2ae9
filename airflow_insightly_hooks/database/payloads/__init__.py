"""Find payloads in the XComs of the tasks that made them.

Private.
"""
