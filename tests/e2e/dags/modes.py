# A workflow in the mode one_task, from a file.
from airflow_insightly_hooks import load_workflows

dags = load_workflows("modes")
