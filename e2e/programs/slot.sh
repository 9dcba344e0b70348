#!/bin/sh
# A program for `lifetime: Slot` in POSIX sh, with `input: File` and `output: File`: sorts the lines of each shard. It reads
# JSON with sed, which is enough for paths without '"' and '\'. The messages are described in docs/slot.md.
set -u

# Messages go to 3. What anything else writes to stdout goes to the log.
exec 3>&1 1>&2

text() { printf '%s\n' "$shard" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
number() { printf '%s\n' "$shard" | sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"; }

read -r hello
echo "started: $hello"
echo '{"type":"ready"}' >&3

while read -r shard; do
    index=$(number index)
    # What is run here must not read the shards that come.
    if sort "$(text input)" >"$(text output)" </dev/null; then
        echo "{\"type\":\"done\",\"index\":$index}" >&3
    else
        echo "{\"type\":\"failed\",\"index\":$index,\"message\":\"sort ended with $?\"}" >&3
    fi
done
