#!/usr/bin/env bash
# Fuzzes every parser of outside bytes with libFuzzer.
#   scripts/fuzz.sh smoke            each target for 2 seconds (CI)
#   scripts/fuzz.sh run [TARGET] [S] one target (or all) for S seconds (default 600); keeps its corpus in fuzz/corpus
# Coverage comes from LLVM passes that a stable toolchain has; address sanitizer would need a nightly one, and the code is safe Rust.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
# A folder of its own, whatever the caller uses: the flags below would otherwise rebuild everything there.
export CARGO_TARGET_DIR="$PWD/target"
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks"
host=$(rustc -vV | sed -n 's/^host: //p')
case "${1:-smoke}" in
    # The same search each time: what CI refuses is what has changed. New ground is for the long runs.
    smoke) seconds=2 only="" search=(-seed=1 -timeout=60) ;;
    run) only=${2:-} seconds=${3:-600} search=(-timeout=10) ;;
    *) echo "usage: scripts/fuzz.sh smoke | run [TARGET] [SECONDS]" >&2; exit 64 ;;
esac
# --target keeps the flags away from build scripts and procedural macros.
cargo build --quiet --release --target "$host"
for source in fuzz_targets/*.rs; do
    name=$(basename "$source" .rs)
    [ -z "$only" ] || [ "$only" = "$name" ] || continue
    mkdir -p "corpus/$name"
    seeds=(); [ -d "seeds/$name" ] && seeds=("seeds/$name")
    "target/$host/release/$name" "corpus/$name" "${seeds[@]}" -max_total_time="$seconds" "${search[@]}" -rss_limit_mb=1024 -verbosity=0 -print_final_stats=1 2>&1 |
        awk -v n="$name" '/number_of_executed_units/ {units=$2} {last=$0; if (/ERROR|panicked|SUMMARY|deadly/) {print; bad=1}} END {printf "fuzz %s: %s runs\n", n, units; exit bad}'
done
