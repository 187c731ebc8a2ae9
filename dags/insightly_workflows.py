# Every YAML file in the folder workflows is a DAG: ten workflows as people build them in Insightly's screens.
from airflow_insightly_hooks import load_workflows

dags = load_workflows("workflows")
