-- Run by PostgreSQL's image when its volume is empty: users and their rights, apart from the runs.
CREATE DATABASE mlflow_auth;
