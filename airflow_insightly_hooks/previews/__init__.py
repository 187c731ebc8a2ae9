"""What a workflow would do with one record, and sending that as a test, for the command line and the UI.

Private: ``record_source`` has the record, ``shown_preview`` what is shown, ``receivers`` what is sent where.
"""
