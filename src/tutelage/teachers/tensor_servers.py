"""The Open Inference Protocol v2 over HTTP and gRPC: `tritonclient` writes requests and reads answers.

Over HTTP its request bodies are sent by `httpx`: its own client does not show the headers of an error, and Retry-After
is one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tutelage.errors import MissingExtra
from tutelage.ledger import Failure
from tutelage.teachers.http import Http, key_from, require_plain_url
from tutelage.teachers.secret import Secret

__all__ = ["GrpcServer", "HttpServer", "TensorServer", "server_at"]

Array = np.ndarray[Any, Any]
PURPOSE = "a teacher behind the Open Inference Protocol"
HEADER_LENGTH = "Inference-Header-Content-Length"
PASSING = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL", "UNKNOWN")
"""gRPC statuses after which the same call may succeed."""


class TensorServer(Protocol):
    """A server that takes and gives named tensors."""

    def metadata(self, timeout: float) -> dict[str, Any]:
        """What it says of the model: `inputs` and `outputs`, each with name, datatype and shape.

        Raises:
            Failure: It says nothing.
        """

    def infer(self, inputs: dict[str, Array], outputs: Sequence[str], timeout: float) -> dict[str, Array]:
        """The outputs of the model.

        Raises:
            Failure: There are none.
        """


def server_at(
    url: str, model: str, version: str, *, key_variable: str | None, binary: bool, most_bytes: int
) -> TensorServer:
    """The server at a URL, by its scheme: gRPC or HTTP.

    Raises:
        RecipeError: The URL holds a secret or has another scheme, or the variable is not set.
    """
    if url.partition("://")[0] in ("grpc", "grpcs"):
        require_plain_url(url, "url", ("grpc", "grpcs"))
        scheme, _, address = url.rstrip("/").partition("://")
        key = key_from(key_variable, "key_variable")
        return GrpcServer(address, model, version, key=key, secure=scheme == "grpcs", most_bytes=most_bytes)
    http = Http(require_plain_url(url, "url"), key_from(key_variable, "key_variable"), most_bytes)
    return HttpServer(http, model, version, binary=binary)


class HttpServer:
    """A model behind HTTP.

    Args:
        http: The connection.
        model: Its name.
        version: Its version; empty leaves it to the server.
        binary: Whether tensors are sent as bytes (an extension that Triton has) and not as JSON.
    """

    def __init__(self, http: Http, model: str, version: str, *, binary: bool) -> None:
        self.http, self.binary = http, binary
        self.path = f"v2/models/{model}" + (f"/versions/{version}" if version else "")
        self.client = _client("http")

    def metadata(self, timeout: float) -> dict[str, Any]:
        """See `TensorServer`."""
        answer = self.http.send("GET", self.path, None, {}, timeout)
        try:
            return _named_tensors(self.http.read_object(answer, self.path))
        except (ValueError, KeyError, TypeError) as error:
            raise Failure(
                "unusable",
                f"{self.http.base}/{self.path} is no metadata of a model: {self.http.secret.hidden(str(error))}",
                retry=False,
            ) from error

    def infer(self, inputs: dict[str, Array], outputs: Sequence[str], timeout: float) -> dict[str, Array]:
        """See `TensorServer`."""
        tensors = [self._tensor(name, array) for name, array in inputs.items()]
        wanted = [self.client.InferRequestedOutput(name, binary_data=self.binary) for name in outputs]
        body, length = self.client.InferenceServerClient.generate_request_body(tensors, wanted)
        headers = {"Content-Type": "application/octet-stream" if length else "application/json"}
        if length:
            headers[HEADER_LENGTH] = str(length)
        answer = self.http.send("POST", f"{self.path}/infer", bytes(body), headers, timeout)
        try:
            header = answer.headers.get(HEADER_LENGTH)
            result = self.client.InferenceServerClient.parse_response_body(
                answer.content, header_length=None if header is None else int(header)
            )
            return _outputs(result, outputs)
        except Exception as error:  # what is no answer of this protocol breaks its reader in many ways
            raise Failure(
                "unusable",
                f"the answer of {self.http.base}/{self.path} can't be read: {type(error).__name__}: "
                f"{self.http.secret.hidden(str(error))[:300]}",
                retry=True,
                http_status=200,
            ) from error

    def _tensor(self, name: str, array: Array) -> Any:
        tensor = self.client.InferInput(name, list(array.shape), _datatype(array))
        return tensor.set_data_from_numpy(array, binary_data=self.binary)


class GrpcServer:
    """A model behind gRPC.

    Args:
        address: `host:port`.
        model: Its name.
        version: Its version; empty leaves it to the server.
        key: An API key, sent as `authorization: Bearer`.
        secure: Whether the connection is encrypted.
        most_bytes: Bytes of the largest answer.
    """

    def __init__(
        self, address: str, model: str, version: str, *, key: str | None, secure: bool, most_bytes: int = 64 * 10**6
    ) -> None:
        self.client = _client("grpc")
        self.model, self.version, self.address = model, version, address
        self.headers = {"authorization": f"Bearer {key}"} if key else None
        self._secret = Secret(key)
        self.server = self.client.InferenceServerClient(
            address, ssl=secure, channel_args=[("grpc.max_receive_message_length", most_bytes)]
        )

    def metadata(self, timeout: float) -> dict[str, Any]:
        """See `TensorServer`."""
        return _named_tensors(
            self._call(
                lambda: self.server.get_model_metadata(
                    self.model, self.version, headers=self.headers, as_json=True, client_timeout=timeout
                ),
                timeout,
            )
        )

    def infer(self, inputs: dict[str, Array], outputs: Sequence[str], timeout: float) -> dict[str, Array]:
        """See `TensorServer`."""
        tensors = []
        for name, array in inputs.items():
            tensor = self.client.InferInput(name, list(array.shape), _datatype(array))
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        wanted = [self.client.InferRequestedOutput(name) for name in outputs]
        result = self._call(
            lambda: self.server.infer(
                self.model,
                tensors,
                self.version,
                outputs=wanted,
                headers=self.headers,
                client_timeout=timeout,
            ),
            timeout,
        )
        return _outputs(result, outputs)

    def _call(self, call: Any, timeout: float) -> Any:
        from tritonclient.utils import InferenceServerException

        try:
            return call()
        except InferenceServerException as error:
            status = str(error.status()).removeprefix("StatusCode.")
            if status == "DEADLINE_EXCEEDED":
                text = f"no answer from {self.address} in {timeout:.3g} seconds"
                raise Failure("timeout", text, retry=True) from error
            said = f"gRPC {status} from {self.address}: {' '.join(str(error.message()).split())}"
            said = self._secret.hidden(said)[:300]
            raise Failure("refused", said, retry=status in PASSING and "larger than max" not in said) from error


def _client(kind: str) -> Any:
    try:
        if kind == "http":
            import tritonclient.http as client
        else:
            import tritonclient.grpc as client
    except (ImportError, RuntimeError) as error:  # tritonclient raises RuntimeError when its own extra is missing
        raise MissingExtra(f"tritonclient[{kind}]", "remote", PURPOSE) from error
    return client


def _datatype(array: Array) -> str:
    from tritonclient.utils import np_to_triton_dtype

    return str(np_to_triton_dtype(array.dtype))


def _outputs(result: Any, names: Sequence[str]) -> dict[str, Array]:
    found = {name: result.as_numpy(name) for name in names}
    missing = [name for name, array in found.items() if array is None]
    if missing:
        raise Failure("unusable", f"the answer has no output `{missing[0]}`", retry=True, http_status=200)
    return found


def _named_tensors(metadata: Any) -> dict[str, Any]:
    """Inputs and outputs of a model as the protocol names them, in plain data."""

    def tensor(each: Any) -> dict[str, Any]:
        return {
            "name": str(each["name"]),
            "datatype": str(each["datatype"]),
            "shape": [int(size) for size in each.get("shape", [])],
        }

    return {
        "name": str(metadata.get("name", "")),
        "versions": [str(version) for version in metadata.get("versions") or []],
        "platform": str(metadata.get("platform", "")),
        "inputs": [tensor(each) for each in metadata["inputs"]],
        "outputs": [tensor(each) for each in metadata["outputs"]],
    }
