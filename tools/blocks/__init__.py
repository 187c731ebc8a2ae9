"""The blocks of the reference: one module for each kind, which makes Markdown of what the code declares."""
