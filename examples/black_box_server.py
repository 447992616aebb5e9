"""A black box on this machine: a model behind the Open Inference Protocol v2 that rounds what it says.

It knows scikit-learn's digits, from the rows that `recipes/blackbox_api.yaml` calls its training rows, and answers
with probabilities of the three likeliest classes to one decimal (`rounded`), or with a class alone (`label`).

    python examples/black_box_server.py                                                    # serve until Ctrl-C
    python examples/black_box_server.py tutelage distill recipes/blackbox_api.yaml         # serve while this runs

The server needs nothing but numpy, scikit-learn and the standard library; the split is tutelage's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier

import tutelage as tt

MODEL = {
    "name": "digits",
    "versions": ["1"],
    "platform": "sklearn",
    "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 8, 8]}],
    "outputs": [
        {"name": "rounded", "datatype": "FP32", "shape": [-1, 10]},
        {"name": "label", "datatype": "INT64", "shape": [-1]},
    ],
}


def train(splits: tt.Splits) -> ExtraTreesClassifier:
    """The model, fitted on training rows alone."""
    data = tt.Data(source=tt.transfer.Digits(), splits=splits).load()
    batch = data.batch(data.rows("train"))
    return ExtraTreesClassifier(300, random_state=0).fit(batch.raw()["image"].reshape(len(batch), -1), batch.labels)


def answer(model: ExtraTreesClassifier, request: dict[str, Any]) -> dict[str, Any]:
    """The body of an answer to an inference request."""
    (pixels,) = request["inputs"]
    shares = model.predict_proba(np.array(pixels["data"]).reshape(pixels["shape"][0], -1))
    third = np.sort(shares, axis=1)[:, -3:-2]
    said = {"rounded": np.where(shares >= third, shares, 0).round(1), "label": shares.argmax(1)}
    outputs = [each for each in MODEL["outputs"] if each["name"] in [wanted["name"] for wanted in request["outputs"]]]
    return {
        "model_name": MODEL["name"],
        "outputs": [
            {**each, "shape": list(said[each["name"]].shape), "data": said[each["name"]].ravel().tolist()}
            for each in outputs
        ],
    }


def serve(model: ExtraTreesClassifier, port: int) -> ThreadingHTTPServer:
    """A server that is ready for requests; its count of inference requests is `served`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            known = self.path == f"/v2/models/{MODEL['name']}"
            self.give(200 if known else 404, MODEL if known else {"error": f"nothing at {self.path}"})

        def do_POST(self) -> None:
            server.served += 1
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                self.give(200, answer(model, request))
            except (KeyError, ValueError, IndexError) as error:
                self.give(400, {"error": str(error)})

        def give(self, status: int, said: Any) -> None:
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        served = 0

    server = Server(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8723)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run while the server is there")
    options = parser.parse_args()
    server = serve(train(tt.Splits(development=0.15, test=0.3)), options.port)
    print(f"digits are told at http://127.0.0.1:{server.server_address[1]}", file=sys.stderr, flush=True)
    try:
        if options.command:
            return subprocess.run(options.command, check=False).returncode
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        print(f"calls served: {server.served}", file=sys.stderr)
        server.shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
