"""The Open Inference Protocol (KServe v2) as JSON: a model's metadata, and answers to requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jdlopt import __version__
from jdlopt.errors import nearest
from jdlopt.export.standalone.answers import decoded
from jdlopt.export.standalone.opening import DTYPES, Bundle, InputError

VERSION = "1"
PREDICTION = "prediction"
Json = dict[str, Any]


def server_metadata() -> Json:
    """Returns the answer to ``GET /v2``."""
    return {"name": "jdlopt", "version": __version__, "extensions": []}


def model_metadata(bundle: Bundle) -> Json:
    """Returns the answer to ``GET /v2/models/NAME``: the tensors that the model takes and gives."""
    inputs = [
        {"name": one.name, "datatype": DTYPES[one.dtype][0], "shape": [-1, *one.shape]}
        for one in bundle.inputs
    ]
    return {
        "name": bundle.name,
        "versions": [VERSION],
        "platform": "onnx_onnxv1",
        "inputs": inputs,
        "outputs": _outputs_of(bundle),
    }


def _outputs_of(bundle: Bundle) -> list[Json]:
    said = bundle.manifest["outputs"]
    found = [
        {"name": one["name"], "datatype": "FP32", "shape": [-1, *one["shape"]]}
        for one in said["tensors"]
    ]
    if bundle.outputs.classes:
        found.insert(0, {"name": PREDICTION, "datatype": "BYTES", "shape": [-1]})
    return found


def asked_outputs(bundle: Bundle, request: Mapping[str, Any]) -> list[str]:
    """Returns the names of the outputs that a request wants: all, if it names none.

    Raises:
      InputError: there is no such output.
    """
    known = [one["name"] for one in _outputs_of(bundle)]
    said = request.get("outputs")
    if said is None:
        return known
    if not isinstance(said, list) or not all(isinstance(one, Mapping) for one in said):
        raise InputError('outputs: expected [{"name": NAME}, …].')
    names = [one.get("name") for one in said]
    for name in names:
        if name not in known:
            raise InputError(
                f"there is no output {name!r:.80}.{nearest(name, known)} Known: {', '.join(known)}."
            )
    return [name for name in known if name in names] or known


def infer_answer(
    bundle: Bundle, request: Mapping[str, Any], found: Mapping[str, np.ndarray]
) -> Json:
    """Returns the answer to an inference request.

    Args:
      bundle: whose model answered.
      request: as `asked_outputs` has checked it.
      found: what the model says of its examples.

    Raises:
      InputError: what it says is not finite, or the request's id is no text.
    """
    columns = decoded(bundle, found)
    outputs = []
    for name in asked_outputs(bundle, request):
        if name == PREDICTION:
            data, shape, datatype = columns[PREDICTION], [len(columns[PREDICTION])], "BYTES"
        else:
            values = found[name]
            data, shape, datatype = values.ravel().tolist(), list(values.shape), "FP32"
        outputs.append({"name": name, "datatype": datatype, "shape": shape, "data": data})
    answer: Json = {"model_name": bundle.name, "model_version": VERSION, "outputs": outputs}
    if "id" in request:
        if not isinstance(request["id"], str):
            raise InputError("id: expected a text.")
        answer["id"] = request["id"]
    return answer
