"""The pages "Insightly webhooks" in Airflow's UI: deliveries, pending webhooks, and previews.

Private. ``ui.app`` makes the application. The plugin mounts it in Airflow's API server.
"""
