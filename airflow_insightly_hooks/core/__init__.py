"""The pure core: no Airflow, no HTTP, no clock of its own."""
