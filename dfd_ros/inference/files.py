"""How the files end that hold networks."""

WEIGHTS_SUFFIX = ".safetensors"
EXPORT_SUFFIX = ".onnx"
