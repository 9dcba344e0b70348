#!/usr/bin/env bash
# Fuzzes every parser of foreign bytes, each for so many seconds: `operator/fuzz/run.sh 20 [TARGET...]`.
#
# What a run learns is kept in `target/fuzz/corpus`, and an input that crashes a target in `artifacts/`; neither is
# committed. Make a crash smaller, and commit it as `regressions/TARGET/WHAT-WAS-WRONG`: `cargo test` tries it again from
# then on.
#   PATH=$PWD/target/tools/bin:$PATH cargo fuzz tmin --fuzz-dir operator/fuzz --target-dir target/fuzz -s none TARGET FILE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

seconds=${1:-20}
shift || true
[[ $seconds =~ ^[1-9][0-9]*$ ]] || {
    echo "usage: operator/fuzz/run.sh SECONDS [TARGET...]" >&2
    exit 2
}
fuzz=operator/fuzz
tools=$PWD/target/tools
built=$PWD/target/fuzz
logs=$built/logs
# An input that takes longer, or more memory, is as bad as a crash.
timeout_seconds=10 most_megabytes=2048

export PATH=$tools/bin:$PATH
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked --version '^0.13' --root "$tools" cargo-fuzz

# Sanitizers need a nightly compiler; coverage alone does not. cargo-fuzz sets RUSTFLAGS, which replaces the static
# linking that .cargo/config.toml asks for.
cargo fuzz build --fuzz-dir "$fuzz" --target-dir "$built" -s none
host=$(rustc -vV | sed -n 's/^host: //p')

targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(cargo fuzz list --fuzz-dir "$fuzz")

figure() { # LOG NAME
    sed -n "s/^stat::$2: *//p" "$1" | tail -n 1
}

# Points of the program that were reached: after the inputs that were there, and in the end.
coverage() { # LOG WHEN
    grep -oE "$2.* cov: [0-9]+" "$1" | tail -n 1 | grep -oE '[0-9]+$' || echo 0
}

mkdir -p "$logs"
crashed=0
printf '%-20s %12s %8s %8s %13s\n' target runs seconds crashes 'new coverage'
for target in "${targets[@]}"; do
    artifacts=$fuzz/artifacts/$target corpus=$built/corpus/$target log=$logs/$target.log started=$SECONDS status=0
    mkdir -p "$artifacts" "$corpus"
    inputs=("$corpus" "$fuzz/seeds/$target")
    [[ -d $fuzz/regressions/$target ]] && inputs+=("$fuzz/regressions/$target")
    "$built/$host/release/$target" -artifact_prefix="$artifacts/" -max_total_time="$seconds" -print_final_stats=1 \
        -timeout="$timeout_seconds" -rss_limit_mb="$most_megabytes" "${inputs[@]}" >"$log" 2>&1 || status=$?
    before=$(coverage "$log" INITED) after=$(coverage "$log" '#')
    printf '%-20s %12s %8d %8d %13s\n' "$target" "$(figure "$log" number_of_executed_units)" $((SECONDS - started)) \
        $((status != 0)) "$((after - before)) of $after"
    if ((status != 0)); then
        crashed=$((crashed + 1))
        # What went wrong, and where its input is.
        grep -E 'panicked at|ERROR:|Test unit written|^ *(left|right):' -A 1 "$log" | head -n 20 >&2
    fi
done

if ((crashed)); then
    echo "fuzz: $crashed of ${#targets[@]} targets crashed; logs are in ${logs#"$PWD/"}, inputs in $fuzz/artifacts" >&2
    exit 1
fi
