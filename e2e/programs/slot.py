#!/usr/bin/env python3
"""A program for `lifetime: Slot`: it loads its model once, then does shard after shard. Copy it; it needs only Python.

Used with `input: File` and `output: File`. The messages are described in docs/slot.md.
"""
import json
import os
import sys
import time

# Libraries print. What they print must not be taken for a message, so stdout becomes stderr, and messages have a file.
messages = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def say(**message):
    print(json.dumps(message), file=messages, flush=True)


def load():
    print("loading the model")
    time.sleep(float(os.environ.get("LOAD_SECONDS", "1")))  # stands for the minutes that yours takes
    return lambda text: {"text": text, "words": len(text.split())}


def do(model, shard):
    with open(shard["input"], encoding="utf-8") as lines, open(shard["output"], "w", encoding="utf-8") as output:
        count = 0
        for line in lines:
            output.write(json.dumps(model(line.rstrip("\n"))) + "\n")
            count += 1
    return f"{count} lines"


hello = json.loads(sys.stdin.readline())
assert hello["hyperflow"] == 1, "another version of the protocol"
model = load()
say(type="ready")
for line in sys.stdin:
    shard = json.loads(line)
    index = shard["index"]
    try:
        say(type="done", index=index, result=do(model, shard))
    except UnicodeDecodeError as error:  # no attempt can do better
        say(type="failed", index=index, message=str(error), **{"class": "BadInput"})
    except Exception as error:  # another attempt may do better; the model stays loaded
        say(type="failed", index=index, message=f"{type(error).__name__}: {error}")
