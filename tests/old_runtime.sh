#!/usr/bin/env bash
# Makes a virtual environment with an old TFLite runtime for
# tests/test_old_runtime.py. Needs Python 3.11 and PyPI.
#
#   tests/old_runtime.sh FOLDER
#   export KERAS_MOBILEVIT_OLD_RUNTIME=FOLDER/bin/python
#   python -m pytest tests/test_old_runtime.py
set -euo pipefail
folder=${1:?usage: tests/old_runtime.sh FOLDER}
python=${PYTHON:-python3.11}
"$python" -m venv "$folder"
"$folder/bin/pip" install --quiet "tflite-runtime==2.14.0" "numpy<2"
"$folder/bin/python" -c "import tflite_runtime; print(tflite_runtime.__version__)"
