"""A bare server of an ONNX file, to be compared with: onnxruntime behind starlette, no batching.

python benchmarks/serving_peer.py MODEL.onnx PORT
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

DTYPES = {"FP32": np.float32, "UINT8": np.uint8}


def main() -> None:
    """Answers inference requests of the Open Inference Protocol, one by one, until it is ended."""
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])

    async def infer(request: Request) -> JSONResponse:
        (tensor,) = (await request.json())["inputs"]
        values = np.array(tensor["data"], DTYPES[tensor["datatype"]]).reshape(tensor["shape"])
        given = {tensor["name"]: values}
        (found,) = await run_in_threadpool(session.run, ["probabilities"], given)
        data = {"name": "probabilities", "datatype": "FP32", "shape": list(found.shape)}
        return JSONResponse({"outputs": [{**data, "data": found.ravel().tolist()}]})

    async def ready(request: Request) -> JSONResponse:
        return JSONResponse({"ready": True})

    app = Starlette(
        routes=[
            Route("/v2/health/ready", ready),
            Route("/v2/models/{name}/infer", infer, methods=["POST"]),
        ]
    )
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
