# A client of the control plane from PyPI, which knows of herd only what reflection tells. It prints JSON, a line each.
#   control.py look SOCKET   asks for everything that can be asked once
#   control.py hold SOCKET   holds a session until it is killed
import json
import sys
import threading

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def say(what):
    print(json.dumps(what), flush=True)


channel = grpc.insecure_channel(f"unix:{sys.argv[2]}")
database = ProtoReflectionDescriptorDatabase(channel)
pool = descriptor_pool.DescriptorPool(database)
service = pool.FindServiceByName("herd.v1.HerdService")


def method(name):
    found = service.methods_by_name[name]
    request = message_factory.GetMessageClass(found.input_type)
    response = message_factory.GetMessageClass(found.output_type)
    make = channel.stream_stream if found.client_streaming else channel.unary_unary
    return request, make(
        f"/{service.full_name}/{name}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )


def fields(message):
    return {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}


Request, acquire = method("Acquire")

if sys.argv[1] == "hold":
    # Requests never end, and so the stream ends only with this process.
    requests = iter([Request(worker_type="default", timeout_seconds=20)])
    for response in acquire(item for items in (requests, iter(threading.Event().wait, None)) for item in items):
        say(fields(response))
else:
    say(sorted(database.get_services()))
    health = health_pb2_grpc.HealthStub(channel)
    for name in ["", "herd.v1.HerdService"]:
        say(health_pb2.HealthCheckResponse.ServingStatus.Name(health.Check(health_pb2.HealthCheckRequest(service=name)).status))
    say(next(iter(health.Watch(health_pb2.HealthCheckRequest(service="")))).status)
    try:
        health.Check(health_pb2.HealthCheckRequest(service="nothing"))
    except grpc.RpcError as error:
        say(error.code().name)
    Empty, status = method("Status")
    say(fields(status(Empty())))
    # Two requests, and no more: what comes is the same session twice, and then a good end.
    call = acquire(iter([Request(), Request()]))
    answers = [fields(answer) for answer in call]
    say({"sessions": len({answer["session_id"] for answer in answers}), "answers": len(answers), "end": call.code().name})
    call = acquire(iter([Request(worker_type="nothing")]))
    try:
        next(call)
    except grpc.RpcError as error:
        say({"code": error.code().name, "details": error.details()})
