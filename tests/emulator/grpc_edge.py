"""The gRPC edge: generic handlers over the real messages, with google.rpc details in the trailers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import grpc
from grpc_status.rpc_status import to_status

from tests.emulator.faults import ConnectionReset
from tests.emulator.journal import Entry
from tests.emulator.messages import METHODS, Pb
from tests.emulator.service import Service
from tests.emulator.status import ApiError
from tests.emulator.tokens import bearer_token

SERVICE_NAME = "google.cloud.secretmanager.v1.SecretManagerService"
_WORKERS = 256


class GrpcEdge:
    """A gRPC server on one loopback port."""

    def __init__(
        self, service: Service, *, host: str, port: int, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self._service = service
        self._credentials = credentials
        self._server: grpc.Server | None = None
        self.host = host
        self.port = port

    def start(self) -> None:
        """Serve, on a free port the first time if the port is 0."""
        server = grpc.server(ThreadPoolExecutor(_WORKERS), options=[("grpc.so_reuseport", 0)])
        handlers = {rpc: self._handler(rpc) for rpc in METHODS}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
        address = f"{self.host}:{self.port}"
        if self._credentials:
            self.port = server.add_secure_port(address, self._credentials)
        else:
            self.port = server.add_insecure_port(address)
        server.start()
        self._server = server

    def stop(self) -> None:
        """Close the port and cut all calls off."""
        if self._server:
            self._server.stop(grace=None).wait()
            self._server = None

    def _handler(self, rpc: str) -> grpc.RpcMethodHandler[Pb, Pb]:
        request_type, response_type = METHODS[rpc]
        return grpc.unary_unary_rpc_method_handler(
            self._behaviour(rpc),
            request_deserializer=request_type.FromString,
            response_serializer=response_type.SerializeToString,
        )

    def _behaviour(self, rpc: str) -> Callable[[Pb, grpc.ServicerContext], Pb]:
        def behave(request: Pb, context: grpc.ServicerContext) -> Pb:
            headers = {key: str(value) for key, value in context.invocation_metadata()}
            entry = Entry("secretmanager", rpc, "grpc", path=f"/{SERVICE_NAME}/{rpc}", headers=headers)
            entry.body = request.SerializeToString()
            try:
                reply = self._service.answer(entry, request, bearer_token(headers))
            except ApiError as error:
                _abort(context, error)
            except ConnectionReset:
                _abort(context, ApiError("UNAVAILABLE", "recvmsg:Connection reset by peer"))
            if reply.truncated:
                _abort(context, ApiError("UNAVAILABLE", "Socket closed"))
            return reply.message

        return behave


def _abort(context: grpc.ServicerContext, error: ApiError) -> NoReturn:
    context.abort_with_status(to_status(error.rpc_status()))
    raise AssertionError("abort_with_status raises")
