"""What must not be shown: secrets in addresses and variables.

A job's command and variables can be read by everybody who may list jobs, an MLflow parameter by
everybody who may read the run.
"""

import re

HIDDEN = "***"
# A secret may hold slashes; what follows a host's colon is a port where it is digits.
_USERINFO = re.compile(r"(?<=://)(?:[^/@\s'\"]+|[^/@\s'\"]*:(?!\d+/)[^@\s'\"]*)@")
_QUERY = re.compile(
    r"(?i)([?&][^=&\s]*(?:secret|token|password|signature|access_?key)[^=&\s]*=)[^&\s'\"]+"
)
_ACCESS_KEY = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")
_NAME = re.compile(r"(?i)secret|token|passw|credential|access_?key|private_?key|api_?key")
_PATHS = re.compile(r"(?i)_(?:path|file)$")


def redacted(text: str) -> str:
    """Return a text without the user and password of addresses, keys in queries, AWS key ids."""
    text = _USERINFO.sub(f"{HIDDEN}@", text)
    text = _QUERY.sub(rf"\g<1>{HIDDEN}", text)
    return _ACCESS_KEY.sub(HIDDEN, text)


def names_a_secret(name: str) -> bool:
    """Whether a variable's name says that its value is secret; files that hold one are not."""
    return bool(_NAME.search(name)) and not _PATHS.search(name)


def check_no_secrets(text: str, *, what: str, name: str = "") -> None:
    """Raise ValueError where a text, or the name of what holds it, shows a secret."""
    if names_a_secret(name) or redacted(text) != text:
        shown = "" if names_a_secret(name) else f" ({redacted(text)})"
        raise ValueError(
            f"{what} holds a secret, which others could read{shown}; leave it out and give it to "
            "the nodes: an instance role, a Kubernetes secret, AWS_* or MLFLOW_TRACKING_* in their "
            "environment, or ~/.aws"
        )
