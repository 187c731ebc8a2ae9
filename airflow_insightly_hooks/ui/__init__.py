"""The pages "Insightly webhooks" in Airflow's UI: what was delivered, what is pending, what would be sent.

Private. ``ui.app`` makes the application; the plugin mounts it in Airflow's API server.
"""
