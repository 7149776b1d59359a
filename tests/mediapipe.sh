#!/usr/bin/env bash
# Makes a virtual environment with MediaPipe Tasks for
# tests/test_mediapipe.py. Needs PyPI.
#
#   tests/mediapipe.sh FOLDER
#   export KERAS_MOBILEVIT_MEDIAPIPE=FOLDER/bin/python
#   python -m pytest tests/test_mediapipe.py
set -euo pipefail
folder=${1:?usage: tests/mediapipe.sh FOLDER}
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet "mediapipe==1.2.2"
"$folder/bin/python" -c "import mediapipe; print(mediapipe.__version__)"
