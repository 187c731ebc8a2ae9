"""Preview what a workflow would do with one record, and send it as a test, for the command line and the UI.

Private: ``record_source`` gets the record, ``shown_preview`` returns the data to show, and ``receivers``
makes requests and sends tests.
"""
