#!/bin/sh
# Makes the virtual environments in which the other exports are written:
#     sh examples/peers/make.sh FOLDER [keras] [torch]
# FOLDER/keras holds keras_cv_attention_models on tf_keras; FOLDER/torch holds
# timm, transformers, litert-torch and ONNX Runtime. Several GB; what is there
# already is kept. An environment that cannot be made is said to be missing,
# and the benchmark then reports its models as missing too.
set -u
folder=${1:?"the folder for the environments"}
shift
wanted=${*:-keras torch}
python=${PYTHON:-python3}
mkdir -p "$folder"

make() { # name, then what pip gets
    name=$1
    shift
    [ -e "$folder/$name/ready" ] && return
    rm -rf "${folder:?}/$name"
    if "$python" -m venv "$folder/$name" &&
        "$folder/$name/bin/pip" install --quiet "$@" &&
        "$folder/$name/bin/pip" freeze >"$folder/$name/ready"; then
        echo "made: $name"
    else
        rm -f "$folder/$name/ready"
        echo "missing: $name" >&2
    fi
}

for name in $wanted; do
    case $name in
    # kecam needs Keras 2, which newer TensorFlows call tf_keras.
    keras) make keras "tensorflow==2.21.*" "tf_keras==2.21.*" \
        keras-cv-attention-models ;;
    # The CPU build: the default one brings gigabytes for another device.
    torch) make torch "torch==${TORCH:-2.13.0}" "litert-torch==0.10.*" \
        timm transformers onnx onnxruntime ;;
    *)
        echo "No such environment: $name" >&2
        exit 2
        ;;
    esac
done
