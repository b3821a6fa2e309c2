#!/bin/sh
# Start the tracking server: PostgreSQL for runs and users, S3 for files, a password for everybody.
#
#   sh infra/mlflow/serve.sh [options of `mlflow server`]
#
# Settings, with what they are when not set:
#   MLFLOW_DATABASE       postgresql+psycopg://mlflow@127.0.0.1:5432/mlflow        no password in it
#   MLFLOW_AUTH_DATABASE  postgresql+psycopg://mlflow@127.0.0.1:5432/mlflow_auth   users and rights
#   MLFLOW_FILES          s3://mlflow/artifacts
#   MLFLOW_S3_ENDPOINT_URL   (for a store that is not Amazon's)
#   MLFLOW_LISTEN         127.0.0.1    address the server listens on
#   MLFLOW_PORT           5000
#   MLFLOW_SECRETS        /run/secrets
#
# Secrets are files of one line in MLFLOW_SECRETS: postgres_password, admin_password (of the user
# `admin`; read at the first start only), session_key (any long random line), s3_access_key,
# s3_secret_key. A file that is missing leaves the variable of the environment as it is: on a cloud
# machine the S3 keys come from its role.
set -eu

secrets=${MLFLOW_SECRETS:-/run/secrets}

take() { # take FILE VARIABLE: the file's line becomes the variable, and is never printed
    if [ -r "$secrets/$1" ]; then
        export "$2=$(cat "$secrets/$1")"
    fi
}

take postgres_password PGPASSWORD
take admin_password MLFLOW_AUTH_ADMIN_PASSWORD
take session_key MLFLOW_FLASK_SERVER_SECRET_KEY
take s3_access_key AWS_ACCESS_KEY_ID
take s3_secret_key AWS_SECRET_ACCESS_KEY

if [ -z "${MLFLOW_FLASK_SERVER_SECRET_KEY:-}" ]; then
    echo "serve.sh: there is no $secrets/session_key; make one: openssl rand -hex 32" >&2
    exit 2
fi

MLFLOW_AUTH_CONFIG_PATH=$(mktemp)
export MLFLOW_AUTH_CONFIG_PATH
cat > "$MLFLOW_AUTH_CONFIG_PATH" << END
[mlflow]
default_permission = READ
database_uri = ${MLFLOW_AUTH_DATABASE:-postgresql+psycopg://mlflow@127.0.0.1:5432/mlflow_auth}
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
grant_default_workspace_access = false
END

export MLFLOW_DISABLE_TELEMETRY=true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # routes that run code on the server

exec "${PYTHON:-python}" -m mlflow server \
    --app-name basic-auth \
    --host "${MLFLOW_LISTEN:-127.0.0.1}" \
    --port "${MLFLOW_PORT:-5000}" \
    --backend-store-uri "${MLFLOW_DATABASE:-postgresql+psycopg://mlflow@127.0.0.1:5432/mlflow}" \
    --artifacts-destination "${MLFLOW_FILES:-s3://mlflow/artifacts}" \
    "$@"
