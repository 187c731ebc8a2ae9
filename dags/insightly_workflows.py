# Makes a DAG from each YAML file in the folder workflows: ten workflows as people build them in Insightly.
from airflow_insightly_hooks import load_workflows

dags = load_workflows("workflows")
