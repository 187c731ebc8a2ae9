# Workflows from a folder with good and broken files. Reading all takes seconds: no other DAG is made here.
from airflow_insightly_hooks import load_workflows

dags = load_workflows("folder")
