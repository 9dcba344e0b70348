"""Copies one file to three, as everybody writes it first: read 4,096 bytes, write them three times.

classic_loop.py INPUT FOLDER --durable|--not-durable; prints the seconds it took, last.
"""

import os
import sys
import time

CHUNK = 4096


def copy(source, targets, durable):
    with open(source, "rb") as reader:
        writers = [open(target, "wb") for target in targets]
        while chunk := reader.read(CHUNK):
            for writer in writers:
                writer.write(chunk)
        for writer in writers:
            writer.flush()
            if durable:
                os.fsync(writer.fileno())
            writer.close()


source, folder, how = sys.argv[1:]
targets = [os.path.join(folder, f"copy-{number}") for number in range(3)]
start = time.monotonic()
copy(source, targets, how == "--durable")
print(time.monotonic() - start)
