"""The blocks of the reference. Each kind has a module, which makes Markdown from declarations in the code."""
