"""The sandbox over HTTP: its paths, pages and limits. The paths are public, but no module here is.

* ``api_paths``, ``search_parameters``: the paths of Insightly's API below ``/v3.1``, and their parameters
* ``bin_paths``, ``request_bin``, ``html_pages``: the request bins below ``/bin``, and the pages for people
* ``control_paths``, ``settings``: ``/_sandbox``, and the settings there
* ``middleware``, ``basic_auth``, ``request_limits``: the API key, limits and faults
* ``state``: everything that a running sandbox remembers
* ``json_body``: JSON bodies of requests and responses

Private.
"""
