"""How Airflow itself is set up, as its database says: its components, connections and pools.

Private.
"""
