#!/usr/bin/env bash
# Installs ONNX Runtime with pip into a folder, unless it is there, and runs check_export.py with it.
#     scripts/check_export.sh FOLDER MODEL.onnx EXPECTED.safetensors [BATCH_SIZE ...]
# Exit code 77 where pip can't install it.
set -euo pipefail
here=$(dirname "$0") folder=$1
shift
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
exec 9> "$folder/lock"
flock 9  # several tests may want it at once
if [ ! -d "$folder/packages" ]; then
    rm -rf "$folder/partial"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$folder/partial" \
        onnxruntime numpy || { echo "pip could not install onnxruntime" >&2; exit 77; }
    mv "$folder/partial" "$folder/packages"
fi
flock -u 9
PYTHONPATH="$folder/packages" exec python3 "$here/check_export.py" "$@"
