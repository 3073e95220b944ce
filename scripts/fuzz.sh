#!/usr/bin/env bash
# Sets up, builds and runs the fuzzers of what reads files (tests/fuzz) under AddressSanitizer and
# UndefinedBehaviorSanitizer. A finding is a crash, a leak, an exception that is no dynvit::Error, a broken promise, 10
# seconds, 2 GB, or much memory at once.
#     scripts/fuzz.sh                                 every reader, for a minute in all
#     scripts/fuzz.sh --seconds 600 [READER ...]      for so long in all; READER as in tests/fuzz/READER_fuzz.cpp
#     scripts/fuzz.sh --runs 1000000 [READER ...]     so many inputs each; with --seconds, too: what comes first
# What is learnt stays in build/fuzz/corpus, inputs of findings in build/fuzz/findings: build/fuzz/tests/fuzz/READER_fuzz
# FILE runs one again.
. "$(dirname "$0")/common.sh"

usage="usage: scripts/fuzz.sh [--seconds N] [--runs N] [READER ...]"
seconds='' runs='' readers=() targets=()
while [ $# -gt 0 ]; do
    case "$1" in
        --seconds | --runs)
            [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || fail "$1: found '${2:-}', expected a whole number from 1 on; $usage"
            if [ "$1" = --runs ]; then runs=$2; else seconds=$2; fi
            shift 2 ;;
        *)
            [ -e "tests/fuzz/$1_fuzz.cpp" ] || fail "unknown reader $1; $usage"
            readers+=("$1") targets+=("$1_fuzz")
            shift ;;
    esac
done

packages+=(clang-19 libclang-rt-19-dev)
install_packages
install_libtorch cpu
build fuzz "${targets[@]}"
if [ ${#readers[@]} -eq 0 ]; then
    for source in tests/fuzz/*_fuzz.cpp; do readers+=("$(basename "$source" _fuzz.cpp)"); done
fi
folder=build/fuzz
rm -rf "$folder/seeds"
python3 tests/fuzz/seeds.py "$folder/seeds"
mkdir -p "$folder/findings"

limit=()
if [ -n "$runs" ]; then limit+=(-runs="$runs"); else seconds=${seconds:-60}; fi
if [ -n "$seconds" ]; then limit+=(-max_total_time="$(((seconds + ${#readers[@]} - 1) / ${#readers[@]}))"); fi
# A third of the time would go into the stacks of functions that have returned.
export UBSAN_OPTIONS=print_stacktrace=1:allow_addr2line=1
export ASAN_OPTIONS=allow_addr2line=1:detect_stack_use_after_return=0
say "Fuzzing ${#readers[@]} readers"
table='' found=0
for reader in "${readers[@]}"; do
    corpus=$folder/corpus/$reader log=$folder/findings/$reader.log result=ok started=$SECONDS
    mkdir -p "$corpus"
    # Pictures may be as large as their files allow; whatever else is read is as large as the file.
    case "$reader" in
        jpeg | webp | gif | bmp | tiff) size=(-max_len=8192 -malloc_limit_mb=512) ;;
        *) size=(-max_len=16384 -malloc_limit_mb=128) ;;
    esac
    "$folder/tests/fuzz/${reader}_fuzz" "${limit[@]}" "${size[@]}" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$folder/findings/$reader-" "$corpus" "$folder/seeds/$reader" > "$log" 2>&1 || {
        result=FOUND found=$((found + 1))
        grep -E '^broken promise|runtime error|ERROR: |what\(\):|^ +#[0-9]+ .*dynvit|^artifact_prefix|Test unit written' "$log" |
            head -n 30 || tail -n 20 "$log"
    }
    inputs=$(awk '$1 == "stat::number_of_executed_units:" { n = $2 } END { print n + 0 }' "$log")
    table+=$(printf '%-16s %10s %8s  %s' "$reader" "$inputs" "$((SECONDS - started))" "$result")$'\n'
    printf '%s: %s inputs, %s\n' "$reader" "$inputs" "$result"
    [ "$result" = FOUND ] || rm -f "$log"
done
say "Fuzzed"
printf '%-16s %10s %8s  %s\n' reader inputs seconds result
printf '%s' "$table"
[ "$found" -eq 0 ] || fail "$found readers with a finding; inputs and logs are in $folder/findings"
