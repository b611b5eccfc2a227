#!/bin/sh
# Installs the service into a new virtual environment: docker/install.sh FOLDER
#
# The versions are those of requirements.lock. PYTHON names the interpreter; pip's own variables apply, so PIP_EXTRA_INDEX_URL can
# point at an index that has PyTorch's small CPU build.
set -eu

venv=${1:?usage: docker/install.sh FOLDER}
cd "$(dirname "$0")/.."

"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --disable-pip-version-check --quiet --constraint requirements.lock .
"$venv/bin/python" -m pip check --disable-pip-version-check
