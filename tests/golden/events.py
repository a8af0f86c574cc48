"""Writes the golden event file with TensorBoard's own messages and record writer: `python events.py`.

TensorBoard 2 and its protobuf. With a folder as its argument, prints what TensorBoard's EventAccumulator reads from the event files in it.
"""

import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c


def framed(message):
    data = message.SerializeToString()
    length = struct.pack("<Q", len(data))
    crc = lambda data: struct.pack("<I", masked_crc32c(data))
    return length + crc(length) + data + crc(data)


def main():
    if len(sys.argv) > 1:
        events = EventAccumulator(sys.argv[1])
        events.Reload()
        for tag in events.Tags()["scalars"]:
            print(tag, [(event.step, event.value) for event in events.Scalars(tag)])
        return
    scalars = {
        "learning_rate": 0.25,
        "loss": 0.75,
        "grad_norm/(root)": 1.5,
        "used_grad_norm/(root)": 0.5,
        "param_norm/(root)": 2.0,
        "update_norm/(root)": 1e-9,
        "update_ratio/(root)": 5e-10,
        "tensor_learning_rate/(root)": 0.125,
    }
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    head = Event(wall_time=1.5, file_version="brain.Event:2")
    event = Event(wall_time=2.5, step=300, summary=Summary(value=values))
    with open("events.tfevents", "wb") as file:
        file.write(framed(head) + framed(event))


main()
